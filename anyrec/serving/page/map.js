// The map of the catalogue: a canvas with a marker, or a small picture, for each item.

import { call, showPicture } from "./api.js";
import { byId, count, el, fill, percent, say, showError } from "./dom.js";
import { drawMarker, markerOf, outline } from "./markers.js";

const MOST_PICTURES = 250; // items in view that are drawn as pictures
const MARGIN = 26;
const REACH = 22; // pixels from an item within which the pointer is at it
const CLOSEST = 40; // times the size of the whole map
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Draw the map and return what changes it. open: called with the id of an item that is chosen. */
export async function openMap(open) {
  const frame = byId("map");
  let data;
  try {
    data = await call("/v1/map");
  } catch (error) {
    if (error.status === 422) byId("map-panel").hidden = true; // a model without vectors: the list of items remains
    else showError(frame, error);
    return undefined;
  }
  const canvas = el("canvas", { tabIndex: 0, role: "application", "aria-label": "Map of the items. Move with the arrow keys, open with Enter, zoom with plus and minus." });
  const tip = el("span", { class: "tip", hidden: true, dir: "auto" });
  fill(frame, canvas, tip, zoomButtons());
  let chosen = -1, hovered, marked = new Set(), kept, places = [];
  const view = { scale: 1, x: 0, y: 0 }; // of the map in the frame, in pixels
  const images = new Map(); // by place in the data; null while they load
  const xs = span(data.x), ys = span(data.y);
  const select = byId("map-feature");
  fill(select, data.features.map((name) => el("option", { value: name }, name.split(".").slice(1).join(".").replaceAll("_", " "))));
  select.value = data.feature;
  select.parentElement.hidden = data.features.length < 2;
  legend();

  function legend() {
    const used = data.kinds.map((name, kind) => ({ name, kind }));
    if (data.kind.includes(-1)) used.push({ name: data.kinds.length ? "others, or not known" : "items", kind: -1 });
    fill(byId("map-legend"), used.map(({ name, kind }) => {
      const canvas = el("canvas", { width: 26, height: 26, "aria-hidden": "true" });
      drawMarker(canvas, markerOf(kind, DARK.matches));
      return el("li", {}, el("button", { type: "button", "aria-pressed": String(kept === kind), onclick: (event) => keep(kind, event.currentTarget) }, canvas, el("span", { dir: "auto" }, name)));
    }));
    const shown = data.item_ids.length < data.items ? `The ${count(data.item_ids.length, "item")} with the most people of ${count(data.items, "item")}` : count(data.items, "item");
    byId("map-note").textContent = `${shown}. Items that the model takes to be similar are close to each other. The plane shows ${percent(data.explained)} of the variance of their vectors (two principal components).`;
  }

  /** Keep the items of one category strong, or all again. */
  function keep(kind, button) {
    kept = kept === kind ? undefined : kind;
    for (const one of byId("map-legend").querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === button && kept !== undefined));
    draw();
  }

  function place() {
    const width = frame.clientWidth, height = frame.clientHeight;
    places = data.x.map((x, n) => [
      view.x + view.scale * (MARGIN + ((x - xs[0]) / xs[1]) * (width - 2 * MARGIN)),
      view.y + view.scale * (MARGIN + ((ys[0] + ys[1] - data.y[n]) / ys[1]) * (height - 2 * MARGIN))]);
    return [width, height];
  }

  function draw() {
    const [width, height] = place(), ratio = devicePixelRatio || 1;
    if (!width) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const seen = [...places.keys()].filter((n) => places[n][0] > -MARGIN && places[n][0] < width + MARGIN && places[n][1] > -MARGIN && places[n][1] < height + MARGIN);
    const pictured = data.picture !== null && seen.length <= MOST_PICTURES;
    const side = (width < 500 ? 20 : 26) + Math.min(26, 4 * (view.scale - 1));
    for (const n of seen.sort((a, b) => weight(a) - weight(b))) {
      pen.globalAlpha = isStrong(n) ? 1 : 0.18;
      const size = n === chosen || n === hovered ? side * 1.5 : side;
      if (pictured && data.pictured[n]) load(n);
      if (pictured && images.get(n)) thumbnail(pen, n, size);
      else point(pen, n, seen.length);
    }
  }

  const isStrong = (n) => n === chosen || n === hovered || ((!marked.size || marked.has(n)) && (kept === undefined || data.kind[n] === kept));
  const weight = (n) => (n === hovered ? 4 : n === chosen ? 3 : isStrong(n) ? 2 : 1);
  const marker = (n) => markerOf(data.kind[n], DARK.matches);

  function load(n) {
    if (images.has(n)) return;
    images.set(n, null);
    const image = new Image();
    image.onload = () => { images.set(n, image); requestDraw(); };
    showPicture(image, `/v1/items/${encodeURIComponent(data.item_ids[n])}/image/${encodeURIComponent(data.picture)}?size=64`);
  }

  let drawing;
  function requestDraw() {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(draw);
  }

  function point(pen, n, seen) {
    const [x, y] = places[n], { colour, shape } = marker(n), strong = n === chosen || n === hovered;
    outline(pen, shape, x, y, strong ? 9 : seen > 1000 ? 3.4 : 6);
    pen.fillStyle = colour;
    pen.fill();
    pen.lineWidth = strong ? 2.5 : 0.6;
    pen.strokeStyle = getComputedStyle(frame)[strong ? "color" : "backgroundColor"];
    pen.stroke();
  }

  function thumbnail(pen, n, size) {
    const [x, y] = places[n], image = images.get(n), { colour, shape } = marker(n);
    const larger = Math.max(image.width, image.height), width = (size * image.width) / larger, height = (size * image.height) / larger;
    pen.drawImage(image, x - width / 2, y - height / 2, width, height);
    pen.lineWidth = size / 10;
    pen.strokeStyle = colour;
    pen.strokeRect(x - width / 2, y - height / 2, width, height);
    outline(pen, shape, x - width / 2, y - height / 2, size / 5.5);
    pen.fillStyle = colour;
    pen.fill();
    pen.lineWidth = 1;
    pen.strokeStyle = getComputedStyle(frame).backgroundColor;
    pen.stroke();
  }

  function nearest(x, y) {
    let best, least = REACH ** 2;
    places.forEach(([px, py], n) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least && isStrong(n)) [best, least] = [n, distance];
    });
    return best;
  }

  function hover(n) {
    if (n === hovered) return;
    hovered = n;
    tip.hidden = n === undefined;
    if (n !== undefined) {
      tip.textContent = data.titles[n];
      const half = tip.offsetWidth / 2 + 4, [x, y] = places[n];
      tip.style.left = `${Math.min(Math.max(x, half), frame.clientWidth - half)}px`;
      tip.style.top = `${y < 60 ? y + 56 : y - 26}px`;
    }
    canvas.style.cursor = n === undefined ? "" : "pointer";
    requestDraw();
  }

  /** Zoom by a factor and keep a point of the frame where it is. */
  function zoom(factor, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
    const scale = Math.min(CLOSEST, Math.max(1, view.scale * factor)), by = scale / view.scale;
    move(x - by * (x - view.x), y - by * (y - view.y), scale);
  }

  function move(x, y, scale = view.scale) {
    const within = (offset, size) => Math.min(0, Math.max(size * (1 - scale), offset));
    Object.assign(view, { scale, x: within(x, frame.clientWidth), y: within(y, frame.clientHeight) });
    canvas.classList.toggle("zoomed", scale > 1);
    hover(undefined);
    requestDraw();
  }

  function zoomButtons() {
    const button = (text, name, action) => el("button", { type: "button", class: "quiet", "aria-label": name, title: name, onclick: action }, text);
    return el("div", { class: "zoom", role: "group", "aria-label": "Zoom of the map" },
      button("+", "Zoom in", () => zoom(1.6)), button("−", "Zoom out", () => zoom(1 / 1.6)));
  }

  let held;
  canvas.addEventListener("pointerdown", (event) => { held = { x: event.clientX - view.x, y: event.clientY - view.y, moved: false, at: [event.clientX, event.clientY] }; });
  canvas.addEventListener("pointermove", (event) => {
    if (held && view.scale > 1 && Math.hypot(event.clientX - held.at[0], event.clientY - held.at[1]) > 4) {
      held.moved = true;
      canvas.setPointerCapture(event.pointerId);
      move(event.clientX - held.x, event.clientY - held.y);
    } else if (!held) hover(nearest(event.offsetX, event.offsetY));
  });
  canvas.addEventListener("pointerleave", () => { held = undefined; hover(undefined); });
  canvas.addEventListener("pointercancel", () => { held = undefined; });
  canvas.addEventListener("click", (event) => {
    const moved = held?.moved, n = nearest(event.offsetX, event.offsetY);
    held = undefined;
    if (!moved && n !== undefined) open(data.item_ids[n]);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls; two fingers on a touchpad zoom
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 120), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("blur", () => hover(undefined));
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const from = hovered ?? (chosen < 0 ? 0 : chosen);
    if (event.key === "Enter") open(data.item_ids[from]);
    else if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.6 : 1 / 1.6, ...places[from]);
    else if (event.key in steps) {
      event.preventDefault();
      const next = towards(places, from, steps[event.key], isStrong);
      if (view.scale > 1) {
        move(view.x - places[next][0] + frame.clientWidth / 2, view.y - places[next][1] + frame.clientHeight / 2);
        place();
      }
      hover(next);
      const kind = data.kinds[data.kind[next]];
      say(kind ? `${data.titles[next]}, ${kind}` : data.titles[next]);
    }
  });
  new ResizeObserver(draw).observe(frame);
  DARK.addEventListener("change", () => { legend(); draw(); });

  return {
    redraw: draw,
    pictured: data.picture !== null,
    kinds: data.kinds,
    choose(id) { chosen = data.item_ids.indexOf(id); requestDraw(); },
    mark(ids) { const wanted = new Set(ids); marked = new Set(data.item_ids.flatMap((id, n) => (wanted.has(id) ? [n] : []))); requestDraw(); },
    share(id) { const n = data.item_ids.indexOf(id); return n < 0 ? undefined : data.popularity[n]; },
    async colour(feature) {
      data = { ...data, ...(await call(`/v1/map?feature=${encodeURIComponent(feature)}`)) };
      kept = undefined;
      legend();
      draw();
    },
  };
}

function span(values) {
  const low = values.reduce((one, other) => Math.min(one, other), Infinity), high = values.reduce((one, other) => Math.max(one, other), -Infinity);
  return [low, high - low || 1];
}

/** Return the nearest place in a direction: distance counts, and twice the distance to the side. */
function towards(places, from, [dx, dy], isWanted) {
  const [x, y] = places[from];
  let best = from, least = Infinity;
  places.forEach(([px, py], n) => {
    const along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (along > 1 && along + 2 * aside < least && isWanted(n)) [best, least] = [n, along + 2 * aside];
  });
  return best;
}
