// Items: search by words or a picture, the map, and one item with its figures and similar items.

import { call, post } from "./api.js";
import { card, features, picture, picturesOf, remember, titleOf } from "./cards.js";
import { byId, count, el, fill, say, showError, whole } from "./dom.js";
import { base64 } from "./form.js";
import { openMap } from "./map.js";
import { showPicture } from "./api.js";

const FOUND = 24;
const SIMILAR = 8;
let map, browsed = 0, ready = false;

export async function openItems(signal, wanted) {
  if (!ready) {
    ready = true;
    byId("item-search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
    byId("item-picture").addEventListener("change", search);
    byId("map-feature").addEventListener("change", () => map?.colour(byId("map-feature").value));
    map = await openMap((id) => { location.hash = `items/${encodeURIComponent(id)}`; });
    byId("item-picture-field").hidden = !map?.hasPictures;
    browse();
  }
  map?.redraw();
  showItem(wanted);
}

/** List the catalogue, page by page. */
async function browse(more = false) {
  browsed = more ? browsed + FOUND : 0;
  try {
    const found = await call(`/v1/items?k=${FOUND}&offset=${browsed}`);
    byId("found-title").textContent = "All items";
    byId("found-note").textContent = count(found.total, "item");
    show(found.items, more);
    byId("found-more").replaceChildren(...(browsed + FOUND < found.total ? [el("button", { type: "button", class: "quiet", onclick: () => browse(true) }, "Show more")] : []));
  } catch (error) {
    showError(byId("found"), error);
  }
}

async function search() {
  const words = byId("item-words").value.trim();
  const [file] = byId("item-picture").files;
  if (!words && !file) return browse();
  byId("found-more").replaceChildren();
  try {
    const query = { k: FOUND, fields: true, ...(words ? { text: words } : {}), ...(file ? { image: await base64(file) } : {}) };
    const { items } = await post("/v1/search", query);
    byId("found-title").textContent = file ? "Closest to the picture" : `Closest to “${words}”`;
    byId("found-note").textContent = "by the content of the items";
    show(items.map((item) => ({ item_id: item.item_id, ...item.fields })));
    map?.mark(items.map((item) => item.item_id));
  } catch (error) {
    if (!words || file) return showError(byId("found"), error);
    const found = await call(`/v1/items?k=${FOUND}&q=${encodeURIComponent(words)}`); // a model without text search
    byId("found-title").textContent = `Contain “${words}”`;
    byId("found-note").textContent = count(found.total, "item");
    show(found.items);
    map?.mark(found.items.map((item) => item.item_id));
  }
  say(byId("found-title").textContent);
}

function show(items, more = false) {
  const made = items.map((item) => {
    remember(item.item_id, item);
    return card(item.item_id, item, { onopen: () => { location.hash = `items/${encodeURIComponent(item.item_id)}`; } });
  });
  if (more) byId("found").append(...made);
  else byId("found").replaceChildren(...(made.length ? made : [el("li", { class: "small" }, "Nothing was found.")]));
}

async function showItem(wanted) {
  const place = byId("item");
  if (wanted === undefined) {
    const { items } = await call("/v1/popular?k=1").catch(() => ({ items: [] }));
    if (!items.length) return place.replaceChildren(el("p", { class: "small" }, "Choose an item."));
    wanted = String(items[0].item_id);
  }
  const path = `/v1/items/${encodeURIComponent(wanted)}`;
  try {
    const item = await call(path);
    remember(item.item_id, item);
    map?.choose(item.item_id);
    fill(place, details(item));
    const { similar } = await post("/v1/similar", { item_ids: [item.item_id], k: SIMILAR, fields: true });
    for (const one of similar[0].items) remember(one.item_id, one.fields || {});
    place.append(el("h3", {}, "Similar items"), el("ul", { class: "thumbs large" }, similar[0].items.map((one) =>
      el("li", {}, el("a", { href: `#items/${encodeURIComponent(one.item_id)}` }, picture(one.item_id, one.fields || {}, "items", 128), el("span", {}, titleOf(one.item_id, one.fields)))))));
  } catch (error) {
    const message = el("div");
    place.append(message);
    showError(message, error);
  }
}

function details(item) {
  const paths = picturesOf(item.item_id, item, "items", 320);
  const users = whole(item.users);
  const share = map?.share(item.item_id);
  return [
    el("h2", {}, titleOf(item.item_id, item)),
    el("div", { class: "pictures" }, paths.length ? paths.map((path, n) => {
      const image = el("img", { alt: `${titleOf(item.item_id, item)}, picture ${n + 1}` });
      showPicture(image, path);
      return image;
    }) : picture(item.item_id, item)),
    el("dl", { class: "figures" },
      el("div", {}, el("dt", {}, "People who had it"), el("dd", {}, users)),
      share === undefined ? null : el("div", {}, el("dt", {}, "More popular than"), el("dd", {}, `${Math.floor(100 * share)} % of items`)),
    ),
    features({ ...item, item_id: undefined, users: undefined }),
  ];
}
