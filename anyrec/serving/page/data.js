// Data: counts, how complete the features are, distributions, and the doctor's findings.

import { call } from "./api.js";
import { frequencies, histogram } from "./charts.js";
import { bar, byId, el, label, percent, showError } from "./dom.js";

const LEVELS = { problem: "Problem", warning: "Warning", note: "Note" };

export async function openData(signal) {
  const place = byId("data-inside");
  if (place.childNodes.length) return;
  place.replaceChildren(el("p", { class: "small" }, "Reading the data …"));
  try {
    const data = await call("/v1/data", { signal });
    byId("data-lead").textContent = data.source === "training"
      ? "What the model was trained on."
      : "What the model keeps of the data: records, and who had what. `anyrec train` also keeps times, types and what the data doctor found.";
    place.replaceChildren(tiles(data.counts), findings(data.findings), activity(data), ...sides(data.features));
  } catch (error) {
    if (error.name === "AbortError") place.replaceChildren();
    else showError(place, error);
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
  if (found === null) return el("div");
  const rank = Object.keys(LEVELS);
  const sorted = [...found].sort((a, b) => rank.indexOf(a.level) - rank.indexOf(b.level));
  return el("div", { class: "panel" }, el("h2", {}, "What the data doctor found"),
    sorted.length
      ? el("ul", { class: "findings" }, sorted.map((one) => el("li", { class: one.level }, el("b", {}, LEVELS[one.level]), el("span", {}, `${one.text} ${one.advice}`))))
      : el("p", {}, "Nothing: the data look sound."));
}

function activity(data) {
  const charts = [["Interactions of each user", data.activity.user], ["Interactions of each item", data.activity.item], ["Interactions over time", data.timeline]];
  return el("div", { class: "charts three" }, charts.filter(([, chart]) => chart?.counts.length).map(([name, chart]) =>
    el("div", { class: "panel" }, el("h2", {}, name), histogram(chart, name))));
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
    chart === null ? null : chart.kind === "values" ? frequencies(chart) : histogram(chart, label(one.name)));
}
