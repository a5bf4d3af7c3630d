// The list of a person: the cards, what moved, and events. It follows each change as soon as the server answers.

import { address, goTo } from "./address.js";
import { call, post } from "./api.js";
import { card, picture, recordOf, remember, titleOf } from "./cards.js";
import { byId, count, dataText, el, fill, keepFocus, oneAtATime, say, showError, unseen } from "./dom.js";
import { kindsOfReasons, leftOut, openWhy, showStages, summary } from "./reasons.js";

const STRIP = 5; // pictures of the list beside a form that fills the screen of a phone
const loading = new Map();
let wanted, asked = new AbortController(), ranks = new Map(), shownFor, showing;

/**
 * Ask for a list and show it.
 *
 * Args:
 *   list: `name`, what the list is of (its changes are marked while it is the same); `title`; `query()`, the request;
 *     `took(item, answer)`, sends an event; `add(item)`, puts an item into the session; `told(answer)`, shows what the
 *     answer says of the person.
 *   signal: Ends it.
 *   now: Give up the request that is under way: the list is of somebody else.
 */
export function showList(list, signal, now = false) {
  if (now) asked.abort();
  if (list.name !== shownFor) ranks.clear();
  wanted = { list, signal };
  return refresh();
}

const refresh = oneAtATime(async () => {
  const { list, signal } = wanted;
  asked = new AbortController();
  const place = byId("list");
  if (!place.childNodes.length) fill(place, Array.from({ length: 8 }, () => el("li", { class: "skeleton", "aria-hidden": "true" })));
  place.setAttribute("aria-busy", "true");
  try {
    const query = { k: Number(byId("list-length").value), fields: true, explain: true, trace: true, ...list.query() };
    const answer = await post("/v1/recommend", query, AbortSignal.any([signal, asked.signal]));
    if (wanted.list.name === list.name && !signal.aborted) show(list, answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    fill(place);
    showError(byId("list-notes"), error, () => showList(list, signal));
  } finally {
    place.setAttribute("aria-busy", "false");
  }
});

function show(list, answer) {
  showing = answer;
  list.told(answer);
  fill(byId("list-notes"), [...new Set(answer.warnings)].map((note) => dataText("p", `${note[0].toUpperCase()}${note.slice(1)}`, { class: "notice" })));
  byId("list-title").textContent = list.title;
  const explained = answer.items.some((item) => item.explanation?.reasons.some((one) => one.share > 0));
  byId("list-key").hidden = !explained;
  if (explained && !byId("list-key").childNodes.length) fill(byId("list-key"), "Why: ", kindsOfReasons());
  for (const item of answer.items) remember(item.item_id, item.fields ?? {});
  const place = byId("list");
  const photos = new Map([...place.children].map((one) => [one.dataset.id, one.querySelector(".picture")]));
  const first = ranks.size === 0;
  keepFocus(() => fill(place, answer.items.length
    ? answer.items.map((item) => listed(item, answer, list, first, photos.get(String(item.item_id))))
    : el("li", { class: "small" }, "No item can be listed: the person had all of them, or rules exclude them.")), () => byId("list-title"));
  const changed = answer.items.filter((item) => ranks.get(item.item_id) !== item.rank).length;
  if (!first && answer.items.length) say(`${count(changed, "place")} of the list changed. First: ${titleOf(answer.items[0].item_id)}`);
  ranks = new Map(answer.items.map((item) => [item.item_id, item.rank]));
  shownFor = list.name;
  fill(byId("strip-pictures"), answer.items.slice(0, STRIP).map((item) => picture(item.item_id, item.fields ?? {}, "items", 128)));
  load(leftOut(answer).map((one) => String(one.item_id))).then(() => { if (showing === answer) showStages(answer); });
}

function listed(item, answer, list, first, photo) {
  const title = titleOf(item.item_id);
  const buttons = el("div", { class: "row" },
    el("button", { type: "button", "data-focus": `add ${item.rank}`, onclick: () => list.add(item) }, "+ Session", unseen(`with ${title}`)),
    list.took && el("button", { type: "button", class: "quiet", "data-focus": `took ${item.rank}`, onclick: () => record(item, answer, list) }, "Took it", unseen(`: an event of ${title}`)));
  const reasons = el("button", { type: "button", class: "link", "data-focus": `why ${item.rank}`, onclick: () => openWhy(item, answer) }, "Why this one", unseen(title));
  return card(item.item_id, item.fields ?? {}, {
    photo,
    badge: el("span", { class: "badges" }, el("span", { class: "rank" }, String(item.rank)), first ? null : moved(item)),
    onopen: () => goTo(address("items", String(item.item_id))),
    extra: [summary(item), buttons, reasons],
  });
}

function moved({ item_id: id, rank }) {
  const before = ranks.get(id);
  if (before === rank) return null;
  if (before === undefined) return el("span", { class: "move new" }, "new");
  const up = before > rank, places = Math.abs(before - rank);
  return el("span", { class: up ? "move up" : "move down" }, el("span", { "aria-hidden": "true" }, `${up ? "▲" : "▼"} ${places}`), unseen(`${up ? "up" : "down"} ${places}`));
}

/** Send an event: the person's next list follows it, like after any event of a shop. */
async function record(item, answer, list) {
  const event_id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  try {
    await post("/v1/events", { events: [{ event_id, user_id: answer.user_id, item_id: item.item_id, recommendation_id: answer.recommendation_id }] });
    list.took();
  } catch (error) {
    showError(byId("list-notes"), error);
  }
}

/** Read the records of items that are not known yet, each of them once. ids: as texts. */
export function load(ids) {
  const missing = ids.filter((id) => !loading.has(id) && !Object.keys(recordOf(id)).length);
  for (const id of missing) {
    loading.set(id, call(`/v1/items/${encodeURIComponent(id)}`).then((record) => remember(record.item_id, record), () => loading.delete(id)));
  }
  return Promise.all(ids.map((id) => loading.get(id)));
}
