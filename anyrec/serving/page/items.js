// Items: search by words or a picture, the map, and one item with its figures and similar items.

import { address, decoded, goTo, note } from "./address.js";
import { call, post, showPicture } from "./api.js";
import { card, features, picture, picturesOf, remember, thumbs, titleOf } from "./cards.js";
import { byId, count, dataText, el, fill, keepFocus, say, showError, whole } from "./dom.js";
import { base64 } from "./form.js";
import { openMap } from "./map.js";
import { FOUND, searchItems } from "./search.js";

const SIMILAR = 8;
const SUGGESTED = 6;
const NARROW = matchMedia("(max-width: 46rem)");
let map, prepared, browsed = 0, searched, open; // open: the item in the address

export async function openItems(signal, { parts }) {
  prepared ??= prepare();
  await prepared;
  if (signal.aborted) return;
  map?.redraw();
  const words = decoded(parts[1]);
  if (words !== byId("item-words").value.trim() || searched === undefined) {
    byId("item-words").value = words;
    search();
  }
  open = decoded(parts[0]);
  showItem(open, signal);
}

async function prepare() {
  const words = byId("item-words"), file = byId("item-picture");
  byId("item-search").addEventListener("submit", (event) => { event.preventDefault(); start(words.value); });
  words.addEventListener("search", () => { if (!words.value) start(""); }); // the cross in the field
  file.addEventListener("change", () => search());
  byId("remove-picture").addEventListener("click", () => { file.value = ""; search(); file.focus(); });
  byId("map-feature").addEventListener("change", () => map?.colour(byId("map-feature").value).catch((error) => showError(byId("map-note"), error)));
  map = await openMap((id) => goTo(itemAddress(String(id))));
  byId("item-picture-field").hidden = !map?.pictured;
  fill(byId("suggested"), map?.kinds.length ? ["Try ", map.kinds.slice(0, SUGGESTED).map((kind) => dataText("button", kind, { type: "button", class: "chip", onclick: () => start(kind) }))] : "");
}

const itemAddress = (id) => address("items", id, byId("item-words").value.trim());

function start(words) {
  byId("item-words").value = words;
  note(address("items", open, words.trim()));
  search();
}

/** Show what is searched for; without words and a picture, all items. */
async function search() {
  const words = byId("item-words").value.trim(), [file] = byId("item-picture").files;
  const mine = searched = {};
  const picture = file && await base64(file);
  byId("chosen-picture").hidden = !file;
  if (file) byId("chosen-image").src = `data:${file.type};base64,${picture}`;
  byId("items-found")[words || file ? "prepend" : "append"](byId("found-panel")); // what was searched for comes before the map
  if (!words && !file) return browse();
  byId("found").setAttribute("aria-busy", "true");
  fill(byId("found-more"));
  byId("found-note").textContent = "";
  byId("found-title").textContent = !file ? `Items for “${words}”` : words ? `Closest to the picture and “${words}”` : "Closest to the picture";
  try {
    const { items, note: text } = await searchItems(words, picture);
    if (searched !== mine) return undefined;
    byId("found-note").textContent = text;
    show(items);
    map?.mark(items.map((item) => item.item_id));
    say(`${count(items.length, "item")}. ${byId("found-title").textContent}`);
  } catch (error) {
    showError(byId("found"), error, search);
  } finally {
    byId("found").setAttribute("aria-busy", "false");
  }
  return undefined;
}

/** List the catalogue, page by page. */
async function browse(more = false) {
  browsed = more ? browsed + FOUND : 0;
  try {
    const found = await call(`/v1/items?k=${FOUND}&offset=${browsed}`);
    byId("found-title").textContent = "All items";
    byId("found-note").textContent = count(found.total, "item");
    show(found.items, more);
    map?.mark([]);
    keepFocus(() => fill(byId("found-more"), browsed + FOUND < found.total && el("button", { type: "button", class: "quiet", "data-focus": "more items", onclick: () => browse(true) }, "Show more")));
  } catch (error) {
    showError(byId("found"), error, () => browse(more));
  }
}

function show(items, more = false) {
  const made = items.map((item) => {
    remember(item.item_id, item);
    return card(item.item_id, item, { onopen: () => goTo(itemAddress(String(item.item_id))) });
  });
  if (more) byId("found").append(...made);
  else keepFocus(() => fill(byId("found"), made.length ? made : el("li", { class: "small" }, "Nothing is found. Try other words, or one of the suggestions.")));
}

/** Show an item; without one, the item that most people had. */
async function showItem(wanted, signal) {
  const place = byId("item");
  place.classList.toggle("chosen", Boolean(wanted));
  try {
    const id = wanted || String((await call("/v1/popular?k=1", { signal })).items[0]?.item_id ?? "");
    if (!id) return fill(place, el("p", { class: "small" }, "Choose an item."));
    const item = await call(`/v1/items/${encodeURIComponent(id)}`, { signal });
    remember(item.item_id, item);
    map?.choose(item.item_id);
    const similar = await similarTo(item.item_id, signal);
    const all = features(item, { without: ["text.title", "text.name"] });
    fill(place, details(item, wanted ? "" : "Most popular"), similar,
      all && [el("h3", {}, "Features"), all]);
    if (!wanted) return undefined;
    if (NARROW.matches) place.scrollIntoView({ block: "start" });
    say(`${titleOf(item.item_id)} is open.`);
  } catch (error) {
    showError(place, error.status === 404 ? new Error(`${error.message} Choose another item.`) : error, error.status === 404 ? undefined : () => showItem(wanted, signal));
  }
  return undefined;
}

async function similarTo(id, signal) {
  try {
    const { similar: [found] } = await post("/v1/similar", { item_ids: [id], k: SIMILAR, fields: true }, signal);
    for (const one of found.items) remember(one.item_id, one.fields ?? {});
    return [el("h3", {}, "Similar items"), thumbs(found.items.map((one) => one.item_id), { class: "thumbs large" })];
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return [el("h3", {}, "Similar items"), el("p", { class: "small" }, error.message)];
  }
}

function details(item, note) {
  const paths = picturesOf(item.item_id, item, "items", 320);
  const share = map?.share(item.item_id);
  return [
    note && el("p", { class: "small" }, note),
    dataText("h2", titleOf(item.item_id, item)),
    paths.length > 0 && el("div", { class: "pictures" }, paths.map((path, n) => {
      const image = el("img", { alt: `${titleOf(item.item_id, item)}, picture ${n + 1}`, onerror: () => image.remove() });
      showPicture(image, path);
      return image;
    })),
    el("dl", { class: "figures" },
      el("div", {}, el("dt", {}, "People who had it"), el("dd", {}, whole(item.users))),
      share !== undefined && el("div", {}, el("dt", {}, "More popular than"), el("dd", {}, `${Math.floor(100 * share)}\u00a0% of items`))),
  ];
}
