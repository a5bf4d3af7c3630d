// Live: what the server does now, twice a second.

import { call, follow } from "./api.js";
import { personOf } from "./cards.js";
import { curves } from "./charts.js";
import { bar, byId, count, dataText, el, fill, keepFocus, percent, short, showError, table, whole } from "./dom.js";

const STAGES = ["represent", "filter", "retrieve", "rank", "rerank", "total"];
const AGAIN = 10_000; // milliseconds between two looks at the experiments
const EVENTS = 12;
let chart, lastEvents;

export function openLive(signal) {
  chart = lastEvents = undefined;
  follow("/v1/live/stream", (name, value) => { connected(true); show(value); }, signal, () => connected(false));
  showExperiments(signal);
}

function connected(on) {
  const place = byId("live-lost");
  if (place.hidden === on) return;
  place.hidden = on;
  place.textContent = on ? "" : "The server does not answer; these are the last figures. The page connects again as soon as it does.";
}

/** Show the experiments, and look again from time to time if there are any: reading the log takes a while. */
async function showExperiments(signal) {
  const place = byId("live-experiments");
  let experiments;
  try {
    ({ experiments } = await call("/v1/experiments", { signal }));
  } catch (error) {
    return showError(place, error, () => showExperiments(signal));
  }
  keepFocus(() => fill(place, experiments.map(experiment)));
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
      apart ? interval(apart.value, apart.low, apart.high, true) : "–", apart ? (apart.p < 0.001 ? "<0.001" : apart.p.toFixed(3)) : "–"];
  });
  const hidden = Object.entries(shadows);
  return el("div", { class: "panel" }, el("h2", {}, `Experiment “${name}”`),
    rows.length > 0 && table(`Variants of ${name}`, ["Variant", "Users", "Converted", "Rate, % [95 %]", "Difference, points [95 %]", "p-value"], rows),
    el("p", { class: "conclusion" }, conclusion),
    notes.map((note) => el("p", { class: "small" }, note)),
    rows.length > 0 && el("p", { class: "small" }, "A user converts with an event after a list of the experiment. Intervals of differences and p-values hold at any time, however often you look."),
    hidden.length > 0 && el("h3", {}, "Shadow variants: their lists are logged and not shown"),
    hidden.map(([variant, { lists, overlap }]) => el("p", { "data-shadow": variant }, el("b", {}, variant), `: ${count(lists, "list")}, ${percent(overlap)} of the shown items in common.`)));
}

/** Return a fraction and its interval in percent. signed: it is a difference. */
function interval(value, low, high, signed = false) {
  const [first, ...rest] = [value, low, high].map((one) => `${signed && one > 0 ? "+" : ""}${(100 * one).toFixed(1)}`.replace("-", "−"));
  return `${first} [${rest.join(", ")}]`;
}

function show(live) {
  const { totals } = live;
  const recent = live.requests.slice(-10).reduce((sum, one) => sum + one, 0) / 10;
  const tiles = [
    ["Requests per second", short(Math.round(recent * 10) / 10), "mean of 10 s"],
    ["Lists", whole(totals.lists), "since the server started"],
    ["Fallbacks", totals.lists ? percent(totals.fallbacks / totals.lists) : "–", `${count(totals.fallbacks, "list")} for people of whom nothing is known`],
    ["Events", whole(totals.events), "since the server started"],
    ["Failures", whole(totals.failures), "faults of the server (status 5xx)"],
    ["Model", live.model.name, `loaded ${ago(Date.now() / 1000 - live.model.loaded)}`],
  ];
  byId("live-tiles").replaceChildren(...tiles.map(([name, value, note]) =>
    el("div", { class: "tile-box", "data-name": name }, el("span", { class: "tile-name" }, name), el("b", {}, value), el("small", {}, note))));
  const data = [live.seconds, live.requests, live.events];
  if (chart?.root.isConnected) chart.setData(data);
  else chart = curves(byId("live-chart"), ["requests", "events"], data, { x: "time", time: true, area: true, live: true, height: 200, text: "Requests and events per second, the last two minutes" });
  showStages(live);
  if (lastEvents !== totals.events || !byId("live-events").childNodes.length) showEvents(live.recent);
  lastEvents = totals.events;
}

function showStages({ stages, lists }) {
  const names = STAGES.filter((name) => name in stages);
  if (!names.length) {
    byId("live-stages").replaceChildren(el("p", { class: "small" }, "No list was requested yet. Open the section People to request one."));
    return;
  }
  const most = Math.max(...names.map((name) => stages[name].p99), 0.001);
  keepFocus(() => fill(byId("live-stages"),
    table("Latency by stage", ["Stage", "Median, ms", "p90, ms", "p99, ms", ""], names.map((name) => [name, ...["p50", "p90", "p99"].map((one) => stages[name][one].toFixed(1)), bar(stages[name].p99 / most)]), { class: "stages" }),
    el("p", { class: "small" }, lists === 1 ? "One list." : `The last ${whole(lists)} lists.`)));
}

function showEvents(events) {
  const link = (n, side, id, text) => dataText("a", text, { href: `#${side}/${encodeURIComponent(id)}`, "data-focus": `${side} of event ${n}` });
  keepFocus(() => fill(byId("live-events"), events.length
    ? el("ul", { class: "events" }, events.slice(0, EVENTS).map((event, n) => el("li", {},
      el("time", {}, new Date(event.timestamp * 1000).toLocaleTimeString("en-GB")),
      el("span", {}, link(n, "people", event.user_id, personOf(event.user_id)), ` ${event.interaction_type ?? "took"} `, link(n, "items", event.item_id, event.title)))))
    : el("p", { class: "small" }, "None yet. “Took it” in the section People sends one.")));
}

function ago(seconds) {
  if (seconds < 90) return `${whole(seconds)} s ago`;
  if (seconds < 5400) return `${whole(seconds / 60)} min ago`;
  return seconds < 130000 ? `${whole(seconds / 3600)} h ago` : `${whole(seconds / 86400)} days ago`;
}
