// Items and people as the page shows them: pictures, titles, features.

import { showPicture } from "./api.js";
import { dataText, el, label, short } from "./dom.js";

const MOST = 3; // values of a record in a line
const OF_A_FEATURE = 2;
const LISTED = 6; // values of a feature that has several
const known = new Map(); // records of items by their ids as texts

export function remember(id, record) {
  known.set(String(id), { ...record, item_id: id });
}

export const recordOf = (id) => known.get(String(id)) ?? {};

/** Return the title of an item or a person: the title or name, or the id. */
export function titleOf(id, record = recordOf(id)) {
  const text = record.text || {};
  const found = text.title || text.name;
  return String((Array.isArray(found) ? found[0] : found) || id);
}

/** Return the name of a person, after a word if it is a number, which alone says nothing. */
export function personOf(id, record = {}, word = "person") {
  const name = titleOf(id, record);
  return /\p{L}/u.test(name) ? name : `${word} ${name}`;
}

/** Return a value, with the name of its feature if it says little without: `gender F`, but `musician`. */
export function valued(name, value) {
  const text = typeof value === "number" ? short(value) : String(value);
  return text.length < 3 || !/\p{L}/u.test(text) ? `${label(`.${name}`)} ${text}` : text;
}

/** Return what is known of an item or a person in a line: categories, then a number. */
export function aboutOf(record, most = MOST) {
  const categories = Object.entries(record.categorical || {}).flatMap(([name, value]) =>
    [value ?? []].flat().slice(0, OF_A_FEATURE).map((one) => valued(name, one)));
  const numbers = Object.entries(record.continuous || {}).filter(([, value]) => typeof value === "number");
  return [...categories.slice(0, most), ...numbers.slice(0, 1).map(([name, value]) => valued(name, value))].join(" · ");
}

/** Return the paths of an item's or a person's pictures. */
export function picturesOf(id, record, side = "items", size = 320) {
  return Object.entries(record.image || {}).flatMap(([feature, value]) =>
    [value ?? []].flat().map((_, n) =>
      `/v1/${side}/${encodeURIComponent(id)}/image/${encodeURIComponent(feature)}?n=${n}&size=${size}`));
}

/** Return the first picture of an item, or a tile with its initials if it has none. */
export function picture(id, record, side = "items", size = 320) {
  const [path] = picturesOf(id, record, side, size);
  const frame = el("span", { class: "picture" });
  if (path) {
    const image = el("img", { alt: "", loading: "lazy", decoding: "async", onerror: () => frame.replaceChildren(tile(id, record)) });
    frame.append(image);
    showPicture(image, path);
  } else {
    frame.append(tile(id, record));
  }
  return frame;
}

function tile(id, record) {
  const title = titleOf(id, record);
  const words = title.replace(/[^\p{L}\p{N} ]/gu, "").split(/\s+/).filter(Boolean);
  const initials = words.length === 1 ? (/\p{N}$/u.test(words[0]) ? words[0].slice(-3) : [...words[0]].slice(0, 2).join("").toUpperCase()) : words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
  const made = el("span", { class: "tile", "aria-hidden": "true" }, initials);
  let hash = 0;
  for (const letter of title) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  made.style.setProperty("--hue", hash);
  return made;
}

/** Return a card of an item with its picture and title. photo: a picture of the item that is there already. */
export function card(id, record, { onopen, extra = [], badge, photo } = {}) {
  const head = [photo ?? picture(id, record), badge, dataText("span", titleOf(id, record), { class: "card-title", title: titleOf(id, record) })];
  return el("li", { class: "card", "data-id": String(id) },
    el("button", { type: "button", class: "card-open", "data-focus": `open ${id}`, onclick: onopen }, head),
    dataText("p", aboutOf(record), { class: "card-about" }),
    extra);
}

/** Return small pictures with titles that lead to items. */
export function thumbs(ids, options = {}) {
  return el("ul", { class: "thumbs", ...options }, ids.map((id) => el("li", {}, el("a", { href: `#items/${encodeURIComponent(id)}`, title: titleOf(id) },
    picture(id, recordOf(id), "items", 128), dataText("span", titleOf(id), { class: "thumb-title" })))));
}

/** Return the features of a record as a list of names and values. without: features that are shown elsewhere. */
export function features(record, { without = [], most = Infinity } = {}) {
  const groups = Object.entries(record).filter(([group, values]) => group !== "image" && typeof values === "object" && values !== null && !Array.isArray(values));
  const rows = groups.flatMap(([group, values]) => Object.entries(values).map(([name, value]) => [`${group}.${name}`, value]));
  const shown = rows.filter(([name, value]) => !without.includes(name) && value !== null && value !== undefined);
  if (!shown.length) return null;
  return el("dl", { class: "features" }, shown.slice(0, most).map(([name, value]) => [el("dt", {}, label(name)), dataText("dd", text(value), { class: "clamped" })]),
    shown.length > most && el("dt", {}, `and ${shown.length - most} more`));
}

function text(value) {
  if (Array.isArray(value)) {
    const more = value.length > LISTED ? `, … (${value.length})` : "";
    return value.slice(0, LISTED).map(text).join(", ") + more;
  }
  if (typeof value === "number") return short(value);
  return /^\d{4}-\d\d-\d\dT/.test(value) ? value.slice(0, 10) : String(value);
}
