// The search for items by words and a picture.

import { call, post } from "./api.js";
import { whole } from "./dom.js";

export const FOUND = 24;
const MOST_WORDS = 8; // words that are searched one by one
const OF_A_WORD = 100; // items of each of them

/**
 * Return the items that contain all words, then the closest by content; without any, those that contain some words.
 *
 * Args:
 *   words: Words, or "".
 *   picture: A file in base64, or undefined; then the items are only the closest by content.
 */
export async function searchItems(words, picture) {
  const query = { k: FOUND, fields: true, ...(words ? { text: words } : {}), ...(picture ? { image: picture } : {}) };
  if (picture) return { items: recordsOf(await post("/v1/search", query)), note: "" };
  const [all, close] = await Promise.all([
    containing(words, FOUND),
    post("/v1/search", query).then(recordsOf, () => []), // the model reads no texts, or knows none of the words
  ]);
  const ids = new Set(all.items.map((item) => item.item_id));
  const items = [...all.items, ...close.filter((item) => !ids.has(item.item_id))].slice(0, FOUND);
  if (all.total) return { items, note: `${whole(all.total)} contain the words${items.length > all.items.length ? "; then the closest by content" : ""}` };
  if (items.length) return { items, note: "No item contains all the words; these are the closest by content" };
  const some = await containingSome(words);
  return { items: some.slice(0, FOUND), note: some.length ? "No item contains all the words; these contain some of them" : "" };
}

const recordsOf = ({ items }) => items.map((item) => ({ item_id: item.item_id, ...item.fields }));

const containing = (words, k) => call(`/v1/items?k=${k}&q=${encodeURIComponent(words)}`);

/** Return the items that contain some words, those that contain the most of them first. */
async function containingSome(words) {
  const single = words.split(/\s+/).filter((word) => word.length > 2).slice(0, MOST_WORDS);
  const found = await Promise.all(single.map((word) => containing(word, OF_A_WORD)));
  const hits = new Map(); // the record and the number of words by id
  for (const item of found.flatMap(({ items }) => items)) hits.set(item.item_id, [item, (hits.get(item.item_id)?.[1] ?? 0) + 1]);
  return [...hits.values()].sort(([, one], [, other]) => other - one).map(([item]) => item);
}
