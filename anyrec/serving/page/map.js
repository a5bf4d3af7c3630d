// The map of the catalogue: a canvas with one point, or one small picture, for each item.

import { call, showPicture } from "./api.js";
import { byId, count, el, percent, say, showError } from "./dom.js";

const COLOURS = ["#2f7d5b", "#c2571a", "#3f6fc4", "#a23b72", "#8a7a12", "#0f8a94", "#7a55c7", "#b23a3a", "#5c7d2a", "#4a5a6a", "#c48a1a"];
const OTHER = "#8a929a";
const MOST_PICTURES = 250;
const MARGIN = 26;
const REACH = 22;

/** Draw the map and return what changes it. open: called with the id of an item that is chosen. */
export async function openMap(open) {
  const frame = byId("map");
  let data;
  try {
    data = await call("/v1/map");
  } catch (error) {
    showError(frame, error);
    return undefined;
  }
  const canvas = el("canvas", { tabIndex: 0, role: "application", "aria-label": "Map of the items. Move with the arrow keys, open with Enter." });
  const tip = el("span", { class: "tip", hidden: true });
  frame.replaceChildren(canvas, tip);
  let chosen, hovered, marked = new Set(), places = [];
  const pictures = new Map();
  const select = byId("map-feature");
  select.replaceChildren(...data.features.map((name) => el("option", { value: name }, name.split(".").slice(1).join("."))));
  select.value = data.feature;
  select.parentElement.hidden = data.features.length < 2;
  legend();
  loadPictures();

  function legend() {
    const used = data.kinds.map((kind, n) => [kind, COLOURS[n]]);
    if (data.kind.includes(-1)) used.push([data.kinds.length ? "others and not known" : "items", OTHER]);
    byId("map-legend").replaceChildren(...used.map(([name, colour]) => {
      const dot = el("span", { class: "dot" });
      dot.style.background = colour;
      return el("li", {}, dot, name);
    }));
    const shown = data.item_ids.length < data.items ? `the ${count(data.item_ids.length, "item")} with the most people` : count(data.items, "item");
    byId("map-note").textContent = `Close items have similar vectors: ${shown}, ${percent(data.explained)} of the variance (first two principal components).`;
  }

  function loadPictures() {
    if (!data.picture || data.item_ids.length > MOST_PICTURES) return;
    data.item_ids.forEach((id, n) => {
      if (!data.pictured[n]) return;
      const image = new Image();
      image.onload = () => { pictures.set(n, image); draw(); };
      showPicture(image, `/v1/items/${encodeURIComponent(id)}/image/${encodeURIComponent(data.picture)}?size=64`);
    });
  }

  function draw() {
    const width = frame.clientWidth, height = frame.clientHeight, ratio = devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const xs = span(data.x), ys = span(data.y);
    places = data.x.map((x, n) => [MARGIN + ((x - xs[0]) / xs[1]) * (width - 2 * MARGIN), MARGIN + ((ys[0] + ys[1] - data.y[n]) / ys[1]) * (height - 2 * MARGIN)]);
    const order = data.x.map((_, n) => n).sort((a, b) => weight(a) - weight(b));
    const side = width < 500 ? 20 : 26;
    for (const n of order) {
      const strong = n === chosen || n === hovered, size = strong ? side * 1.5 : side;
      pen.globalAlpha = marked.size && !marked.has(n) && !strong ? 0.25 : 1;
      if (pictures.has(n)) thumbnail(pen, n, size, strong);
      else point(pen, n, strong);
    }
    pen.globalAlpha = 1;
  }

  const weight = (n) => (n === hovered ? 3 : n === chosen ? 2 : marked.has(n) ? 1 : 0);
  const colourOf = (n) => (data.kind[n] < 0 ? OTHER : COLOURS[data.kind[n]]);

  function point(pen, n, strong) {
    const [x, y] = places[n];
    pen.beginPath();
    pen.arc(x, y, strong ? 8 : data.x.length > 1000 ? 3 : 5, 0, 2 * Math.PI);
    pen.fillStyle = colourOf(n);
    pen.fill();
    if (strong) ring(pen);
  }

  function thumbnail(pen, n, size, strong) {
    const [x, y] = places[n];
    pen.save();
    pen.beginPath();
    pen.roundRect(x - size / 2, y - size / 2, size, size, 5);
    pen.clip();
    pen.drawImage(pictures.get(n), x - size / 2, y - size / 2, size, size);
    pen.restore();
    pen.beginPath();
    pen.roundRect(x - size / 2, y - size / 2, size, size, 5);
    pen.lineWidth = strong ? 4 : 2.5;
    pen.strokeStyle = colourOf(n);
    pen.stroke();
  }

  function ring(pen) {
    pen.lineWidth = 2;
    pen.strokeStyle = getComputedStyle(frame).color;
    pen.stroke();
  }

  function nearest(x, y) {
    let best, least = REACH ** 2;
    places.forEach(([px, py], n) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [n, distance];
    });
    return best;
  }

  function hover(n) {
    if (n === hovered) return;
    hovered = n;
    tip.hidden = n === undefined;
    if (n !== undefined) {
      tip.textContent = data.titles[n];
      tip.style.left = `${Math.min(Math.max(places[n][0], 60), frame.clientWidth - 60)}px`;
      tip.style.top = `${places[n][1] - 28}px`;
    }
    canvas.style.cursor = n === undefined ? "default" : "pointer";
    draw();
  }

  const at = (event) => nearest(event.offsetX, event.offsetY);
  canvas.addEventListener("pointermove", (event) => hover(at(event)));
  canvas.addEventListener("pointerleave", () => hover(undefined));
  canvas.addEventListener("click", (event) => { const n = at(event); if (n !== undefined) open(data.item_ids[n]); });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const from = hovered ?? chosen ?? 0;
    if (event.key === "Enter") return open(data.item_ids[from]);
    if (!(event.key in steps)) return undefined;
    event.preventDefault();
    const next = towards(places, from, steps[event.key]);
    hover(next);
    return say(data.titles[next]);
  });
  new ResizeObserver(draw).observe(frame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  return {
    redraw: draw,
    hasPictures: data.picture !== null,
    choose(id) { chosen = data.item_ids.indexOf(id); draw(); },
    mark(ids) { const wanted = new Set(ids); marked = new Set(data.item_ids.flatMap((id, n) => (wanted.has(id) ? [n] : []))); draw(); },
    share(id) { const n = data.item_ids.indexOf(id); return n < 0 ? undefined : data.popularity[n]; },
    async colour(feature) {
      data = { ...data, ...(await call(`/v1/map?feature=${encodeURIComponent(feature)}`)) };
      legend();
      draw();
    },
  };
}

function span(values) {
  const low = Math.min(...values), high = Math.max(...values);
  return [low, high - low || 1];
}

/** Return the nearest place in a direction: distance counts, and twice the distance to the side. */
function towards(places, from, [dx, dy]) {
  const [x, y] = places[from];
  let best = from, least = Infinity;
  places.forEach(([px, py], n) => {
    const along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (along > 1 && along + 2 * aside < least) [best, least] = [n, along + 2 * aside];
  });
  return best;
}
