// Data: counts, how complete the features are, distributions, and the doctor's findings.

import { call } from "./api.js";
import { picture } from "./cards.js";
import { frequencies, histogram } from "./charts.js";
import { bar, byId, dataText, el, fill, label, percent, showError } from "./dom.js";

const LOOKED_AT = 30, SAMPLES = 8; // records that are read for pictures, and pictures that are shown
const LEVELS = { problem: "Problem", warning: "Warning", note: "Note" };

export async function openData(signal) {
  const place = byId("data-inside");
  if (place.childNodes.length) return;
  fill(place, el("p", { class: "small" }, "Reading the data …"));
  try {
    const data = await call("/v1/data", { signal });
    byId("data-lead").textContent = data.source === "training"
      ? "What the model was trained on."
      : "What the model keeps of its training data. Times, types and the findings of the data doctor are in a run of anyrec train.";
    fill(place, tiles(data.counts), findings(data.findings), activity(data), sides(data.features));
  } catch (error) {
    fill(place); // the next visit tries again
    showError(place, error, () => openData(signal));
  }
}

function tiles(counts) {
  return el("dl", { class: "tiles" }, counts.map(([name, text]) => {
    const [, number, more] = text.match(/^([\d,]+)(?: \((.*)\))?$/) ?? [];
    const main = number ?? text.replace(/(\d{4}-\d\d-\d\d)T[\d:.]+Z/g, "$1"), rest = more ? [more] : [];
    const long = number === undefined;
    return el("div", { class: long ? "tile-box long" : "tile-box" }, el("dt", {}, name), el("dd", {}, main, rest.length ? el("small", {}, rest.join(" ")) : null));
  }));
}

function findings(found) {
  if (found === null) return null;
  const rank = Object.keys(LEVELS);
  const sorted = [...found].sort((a, b) => rank.indexOf(a.level) - rank.indexOf(b.level));
  return el("div", { class: "panel" }, el("h2", {}, "What the data doctor found"),
    sorted.length
      ? el("ul", { class: "findings" }, sorted.map((one) => el("li", { class: one.level }, el("b", {}, LEVELS[one.level]), dataText("span", `${one.text} ${one.advice}`))))
      : el("p", {}, "Nothing: the data look sound."));
}

function activity(data) {
  const charts = [["Interactions of each user", data.activity.user], ["Interactions of each item", data.activity.item], ["Interactions over time", data.timeline]];
  return el("div", { class: "charts three" }, charts.filter(([, chart]) => chart?.counts.length).map(([name, chart]) =>
    el("div", { class: "panel" }, el("h2", {}, name), histogram(chart, name, true))));
}

function sides(features) {
  return ["user", "item"].map((side) => {
    const own = features.filter((one) => one.side === side);
    if (!own.length) return null;
    return el("div", {}, el("h2", {}, side === "user" ? "Features of people" : "Features of items"), el("div", { class: "feature-grid" }, own.map((one) => feature(one))));
  }).filter(Boolean);
}

function feature(one) {
  const chart = one.chart;
  return el("div", { class: "panel feature" },
    el("h3", {}, label(one.name), el("span", { class: "group" }, one.name.split(".")[0])),
    el("p", { class: "fill" }, bar(one.present), el("span", { class: "number" }, `${percent(one.present)} have it`)),
    el("p", { class: "small" }, one.content),
    one.name.startsWith("image.") && samples(one),
    chart === null ? null : chart.kind === "values" ? frequencies(chart) : histogram(chart, label(one.name)));
}

/** Return some pictures of a feature. */
function samples({ side, name }) {
  const place = el("div", { class: "samples" }), only = name.slice("image.".length);
  call(`/v1/${side}s?k=${LOOKED_AT}`).then((found) => {
    const pictured = found[`${side}s`].filter((one) => one.image?.[only]?.length).slice(0, SAMPLES);
    fill(place, pictured.map((one) => picture(one[`${side}_id`], { image: { [only]: one.image[only] } }, `${side}s`, 128)));
  }, () => {});
  return place;
}
