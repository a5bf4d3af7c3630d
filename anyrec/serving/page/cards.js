// Items and people as the page shows them: pictures, titles, what is known of them.

import { showPicture } from "./api.js";
import { el, label, short } from "./dom.js";

const SHOWN = 3;
const known = new Map(); // records of items by id

export function remember(id, record) {
  known.set(id, record);
}

export const recordOf = (id) => known.get(id) || {};

/** Return the title of an item: its title or name, or its id. */
export function titleOf(id, record = recordOf(id)) {
  const text = record.text || {};
  const found = text.title || text.name;
  return String((Array.isArray(found) ? found[0] : found) || id);
}

/** Return what is known of an item or a person in a line: categories, then numbers. */
export function aboutOf(record, most = SHOWN) {
  const categories = Object.values(record.categorical || {}).flat().slice(0, most).map(String);
  const numbers = Object.entries(record.continuous || {}).filter(([, value]) => typeof value === "number");
  return [...categories, ...numbers.slice(0, 1).map(([name, value]) => `${label(`.${name}`)} ${short(value)}`)].join(" · ");
}

/** Return the paths of an item's or a person's pictures. */
export function picturesOf(id, record, side = "items", size = 320) {
  return Object.entries(record.image || {}).flatMap(([feature, value]) =>
    [value].flat().map((_, n) =>
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
  const made = el("span", { class: "tile", "aria-hidden": "true" }, words.slice(0, 2).map((word) => word[0].toUpperCase()).join(""));
  let hash = 0;
  for (const letter of title) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  made.style.setProperty("--hue", hash);
  return made;
}

/** Return a card of an item with its picture and title. */
export function card(id, record, { onopen, extra = [], badge } = {}) {
  const title = titleOf(id, record);
  const head = [picture(id, record), badge, el("span", { class: "card-title" }, title)];
  return el("li", { class: "card", "data-id": String(id) },
    onopen ? el("button", { type: "button", class: "card-open", onclick: onopen }, head) : el("div", { class: "card-open" }, head),
    el("p", { class: "card-about" }, aboutOf(record)),
    extra);
}

/** Return all features of a record as a list of names and values. */
export function features(record) {
  const rows = Object.entries(record).filter(([group]) => group !== "image").flatMap(([group, values]) =>
    typeof values === "object" && values !== null && !Array.isArray(values)
      ? Object.entries(values).map(([name, value]) => [label(`${group}.${name}`), value])
      : []);
  return el("dl", { class: "features" }, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, shown(value))]));
}

function shown(value) {
  if (Array.isArray(value)) {
    const more = value.length > 6 ? `, … (${value.length})` : "";
    return value.slice(0, 6).map(shown).join(", ") + more;
  }
  if (typeof value === "number") return short(value);
  return /^\d{4}-\d\d-\d\dT/.test(value) ? value.slice(0, 10) : String(value);
}
