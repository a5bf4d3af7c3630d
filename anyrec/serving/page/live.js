// Live: what the server does now, twice a second.

import { call, follow } from "./api.js";
import { curves } from "./charts.js";
import { bar, byId, count, el, fill, percent, say, short, showError, table, whole } from "./dom.js";

const STAGES = ["represent", "filter", "retrieve", "rank", "rerank", "total"];
const AGAIN = 10_000;
let chart, lastEvents;

export function openLive(signal) {
  chart = undefined;
  follow("/v1/live/stream", (name, value) => show(value), signal);
  showExperiments(signal);
}

/** Show the experiments, and look again from time to time if there are any: reading the log takes a while. */
async function showExperiments(signal) {
  const place = byId("live-experiments");
  let experiments;
  try {
    ({ experiments } = await call("/v1/experiments", { signal }));
  } catch (error) {
    return showError(place, error);
  }
  fill(place, experiments.map(experiment));
  if (experiments.length) {
    const timer = setTimeout(() => showExperiments(signal), AGAIN);
    signal.addEventListener("abort", () => clearTimeout(timer));
  }
  return undefined;
}

function experiment({ experiment: name, rates, differences = {}, notes = [], conclusion, shadows = {} }) {
  const rows = Object.entries(rates).map(([variant, one]) => {
    const apart = differences[variant];
    return [variant, whole(one.users), whole(one.converted), one.rate === null ? "–" : interval(one.rate, one.low, one.high),
      apart ? interval(apart.value, apart.low, apart.high) : "–", apart ? apart.p.toPrecision(2) : "–"];
  });
  return el("div", { class: "panel" }, el("h2", {}, `Experiment “${name}”`),
    rows.length > 0 && el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": `Variants of ${name}` },
      table(["Variant", "Users", "Did it", "Rate [95 %]", "Difference [95 %]", "p at any time"], rows)),
    ...[...notes, conclusion].map((text) => el("p", { class: "small" }, text)),
    ...Object.entries(shadows).map(([variant, { lists, overlap }]) => el("p", { class: "small", "data-shadow": variant },
      `Shadow variant ${variant}: ${count(lists, "list")}, ${percent(overlap)} of the shown items in common.`)));
}

const interval = (value, low, high) => [value, low, high].map((one) => (100 * one).toFixed(1)).reduce((text, one, n) => `${text}${n === 1 ? " [" : ", "}${one}`) + "] %";

function show(live) {
  const { totals } = live;
  const recent = live.requests.slice(-10).reduce((sum, one) => sum + one, 0) / 10;
  const tiles = [
    ["Requests per second", short(Math.round(recent * 10) / 10), "mean of 10 s"],
    ["Lists", whole(totals.lists), "since the start"],
    ["Fallbacks", totals.lists ? percent(totals.fallbacks / totals.lists) : "–", `${whole(totals.fallbacks)} lists were not personal`],
    ["Events", whole(totals.events), "since the start"],
    ["Failures", whole(totals.failures), "answers with status 5xx"],
    ["Model", live.model.name, `loaded ${ago(Date.now() / 1000 - live.model.loaded)}`],
  ];
  byId("live-tiles").replaceChildren(...tiles.map(([name, value, note]) =>
    el("div", { class: "tile-box", "data-name": name }, el("span", { class: "tile-name" }, name), el("b", {}, value), el("small", {}, note))));
  const data = [live.seconds, live.requests, live.events];
  if (chart?.root.isConnected) chart.setData(data);
  else chart = curves(byId("live-chart"), ["requests", "events"], data, { x: "time", time: true, area: true, height: 200, text: "Requests and events per second, the last two minutes" });
  showStages(live);
  if (lastEvents !== undefined && totals.events > lastEvents) say(`${whole(totals.events)} events.`);
  if (lastEvents !== totals.events || !byId("live-events").childNodes.length) showEvents(live.recent);
  lastEvents = totals.events;
}

function showStages({ stages, lists }) {
  const names = STAGES.filter((name) => name in stages);
  if (!names.length) {
    byId("live-stages").replaceChildren(el("p", { class: "small" }, "No list was asked for yet."));
    return;
  }
  const most = Math.max(...names.map((name) => stages[name].p99), 0.001);
  byId("live-stages").replaceChildren(
    table(["Stage", "p50", "p90", "p99 in ms", ""], names.map((name) => [name, ...["p50", "p90", "p99"].map((one) => stages[name][one].toFixed(1)), bar(stages[name].p99 / most)]), { class: "stages" }),
    el("p", { class: "small" }, lists === 1 ? "One list." : `The last ${whole(lists)} lists.`));
}

function showEvents(events) {
  byId("live-events").replaceChildren(events.length
    ? el("ul", { class: "events" }, events.slice(0, 12).map((event) => el("li", {},
      el("time", {}, new Date(event.timestamp * 1000).toLocaleTimeString("en-GB")),
      el("span", {}, el("b", {}, String(event.user_id)), ` ${event.interaction_type ?? "took"} `, el("a", { href: `#items/${encodeURIComponent(event.item_id)}` }, event.title)))))
    : el("p", { class: "small" }, "None yet. “Took it” in the section People sends one."));
}

function ago(seconds) {
  if (seconds < 90) return `${whole(seconds)} s ago`;
  if (seconds < 5400) return `${whole(seconds / 60)} min ago`;
  return seconds < 130000 ? `${whole(seconds / 3600)} h ago` : `${whole(seconds / 86400)} days ago`;
}
