// Charts: curves by uPlot, and bars of distributions as elements.

import { bar, count, dataText, el, percent, short, whole } from "./dom.js";

const made = new Set();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const SERIES = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];

/** Draw curves. data: the x values, then those of each series. text: what a reader of the screen hears. */
export function curves(place, names, data, { x = "epoch", time = false, text, height = 220, area = false, live = false } = {}) {
  place.replaceChildren();
  const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const clock = (chart, values) => values.map((value) => new Date(value * 1000).toLocaleTimeString([], { hour12: false }));
  const whole = (chart, values) => values.map((value) => (Number.isInteger(value) ? String(value) : ""));
  const chart = new uPlot({
    width: Math.max(260, place.clientWidth), height,
    cursor: { y: false, points: { size: 7 } },
    legend: { show: names.length > 1 || live, live },
    scales: { x: { time, range: data[0].length === 1 ? (chart, low) => [low - 1, low + 1] : undefined }, y: { range: area ? (chart, low, high) => [0, Math.max(1, high * 1.15)] : undefined } },
    axes: [{ ...axis, values: time ? clock : whole, ...(time ? { space: 80, size: 30 } : {}) }, { ...axis, size: 54, values: (chart, values) => values.map((value) => short(value)) }],
    series: [{ label: x }, ...names.map((name, n) => ({
      label: name, width: 2, spanGaps: true,
      stroke: () => colour(SERIES[n % SERIES.length]),
      fill: area ? () => `${colour(SERIES[n % SERIES.length])}2b` : undefined,
      points: { show: !time && data[0].length < 60 },
      value: (chart, value) => short(value),
    }))],
  }, data, place);
  place.setAttribute("role", "img");
  if (text) place.setAttribute("aria-label", text);
  const one = { chart, place };
  made.add(one);
  return chart;
}

function redraw() {
  for (const one of made) {
    if (!one.chart.root.isConnected) made.delete(one);
    else if (one.place.clientWidth) one.chart.setSize({ width: one.place.clientWidth, height: one.chart.height });
  }
}

addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

/** Return the most frequent values of a category with bars. */
export function frequencies(chart) {
  const total = chart.counts.reduce((sum, one) => sum + one, 0) + chart.others_count;
  const most = Math.max(...chart.counts, 1);
  const rows = chart.labels.map((name, n) => [name, chart.counts[n]]);
  return el("div", {},
    el("ul", { class: "bars" }, rows.map(([name, number]) => el("li", {}, dataText("span", name, { title: name }), bar(number / most, whole(number)), el("span", { class: "number", title: whole(number) }, number / total < 0.01 ? whole(number) : percent(number / total))))),
    chart.others ? el("p", { class: "small" }, `And ${count(chart.others, "other value")}: ${percent(chart.others_count / total)}`) : null);
}

/** Return a histogram as columns. counts: whether the values are counts, not years, say. */
export function histogram(chart, name, counts = false) {
  if (!chart.counts.length) return el("p", { class: "small" }, "No values.");
  const most = Math.max(...chart.counts, 1);
  const edge = (value) => (typeof value === "string" ? value.slice(0, 10) : counts ? whole(value) : short(value));
  const last = chart.edges[chart.edges.length - 1];
  const text = `${name}: ${edge(chart.edges[0])} to ${edge(chart.most ?? last)}`;
  const columns = chart.counts.map((number, n) => {
    const column = el("span", { title: `${edge(chart.edges[n])} to ${edge(chart.edges[n + 1])}: ${whole(number)}` });
    column.style.height = `${Math.max(number ? 2 : 0, (100 * number) / most)}%`;
    return column;
  });
  return el("figure", { class: "histogram" },
    el("div", { class: "histogram-columns", role: "img", "aria-label": text }, columns),
    el("figcaption", {}, el("span", {}, edge(chart.edges[0])), el("span", {}, chart.of || ""), el("span", {}, edge(chart.most > last ? chart.most : last))));
}
