// Training: the curves of runs, live while one trains, what differs between runs, and the report.

import { call, follow, text } from "./api.js";
import { curves } from "./charts.js";
import { byId, count, el, short, showError, table, whole } from "./dom.js";
import { write } from "./json.js";

const MOST = 6;
const state = { runs: [], chosen: new Set(), epochs: new Map(), over: false };

export async function openTraining(signal, _, about) {
  try {
    const { runs, current } = await call("/v1/runs", { signal });
    state.runs = runs;
    if (!state.chosen.size && runs.length) state.chosen.add(runs[0].name);
    if (!runs.length) {
      byId("runs").replaceChildren(el("p", { class: "small" }, "This model was not saved by a training run, so there are no curves."));
      return;
    }
    state.training = about.training === true;
    await showRuns(signal);
    showReport(current, signal);
    follow(`/v1/runs/${encodeURIComponent(current)}/events`, (name, value) => receive(current, name, value, signal), signal);
  } catch (error) {
    showError(byId("runs"), error);
  }
}

function receive(run, name, value, signal) {
  const known = state.epochs.get(run) ?? state.epochs.set(run, []).get(run);
  if (name === "restart") known.length = 0;
  if (name === "epoch") {
    const same = known.findIndex((one) => one.epoch === value.epoch);
    if (same >= 0) known[same] = value;
    else known.push(value);
  }
  if (name === "end") {
    state.training = false;
    state.runs = state.runs.map((one) => (one.name === run ? value : one));
    showRuns(signal);
    showReport(run, signal);
    return false;
  }
  draw();
  return true;
}

async function showRuns(signal) {
  const wanted = [...state.chosen].filter((name) => !state.epochs.has(name));
  await Promise.all(wanted.map(async (name) => {
    const run = await call(`/v1/runs/${encodeURIComponent(name)}`, { signal });
    state.epochs.set(name, run.epochs);
  }));
  const metric = state.runs[0].metric;
  const rows = state.runs.map((run) => [
    el("label", {}, el("input", { type: "checkbox", checked: state.chosen.has(run.name), onchange: (event) => toggle(run.name, event.target.checked, signal) }), ` ${run.name}`),
    run.settings["model.type"] ?? "–",
    run.trained ? new Date(run.changed * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }) : "in training",
    short(run.metrics.validation?.[metric]),
    short(run.metrics.test?.[metric]),
    short(run.metrics.test?.["recall@10"]),
  ]);
  byId("runs").replaceChildren(table(["Run", "Model", "Trained", `Validation ${metric}`, `Test ${metric}`, "Test recall@10"], rows));
  draw();
  showDifferences();
}

function toggle(name, on, signal) {
  if (on) state.chosen.add(name);
  else state.chosen.delete(name);
  showRuns(signal).catch((error) => showError(byId("curves"), error));
}

function draw() {
  const chosen = state.runs.filter((run) => state.chosen.has(run.name)).slice(0, MOST);
  const metric = state.runs[0].metric;
  const place = byId("curves");
  const longest = Math.max(0, ...chosen.map((run) => state.epochs.get(run.name)?.length ?? 0));
  byId("training-lead").textContent = state.training
    ? `Training: ${longest ? `${count(longest, "epoch")} done` : "the first epoch"}. The curves grow as it goes on.` : "How training went, epoch by epoch.";
  if (!longest) {
    place.replaceChildren(el("p", { class: "small" }, state.training ? "The first epoch has not ended yet." : "There are no curves: a classical model is computed in one step."));
    return;
  }
  const charts = [["Loss", (entry) => entry.loss], [`Validation ${metric}`, (entry) => entry.validation?.[metric]], ["Seconds for each epoch", (entry) => entry.seconds]];
  if (place.dataset.charts !== charts.map(([name]) => name).join()) {
    place.dataset.charts = charts.map(([name]) => name).join();
    place.replaceChildren(...charts.map(([name]) => el("div", { class: "panel" }, el("h2", {}, name), el("div", { class: "chart" }))));
  }
  const epochs = Array.from({ length: longest }, (_, n) => n + 1);
  charts.forEach(([name, value], n) => {
    const series = chosen.map((run) => epochs.map((epoch) => value(state.epochs.get(run.name)?.find((one) => one.epoch === epoch) ?? {}) ?? null));
    const last = series.map((one, m) => `${chosen[m].name} ${short(one.filter((each) => each !== null).at(-1))}`).join(", ");
    curves(place.children[n].querySelector(".chart"), chosen.map((run) => run.name), [epochs, ...series], { text: `${name} after ${longest} epochs: ${last}` });
  });
}

/** Show the settings in which the chosen runs differ. */
function showDifferences() {
  const chosen = state.runs.filter((run) => state.chosen.has(run.name));
  const place = byId("run-differences");
  if (chosen.length < 2) return place.replaceChildren();
  const names = [...new Set(chosen.flatMap((run) => Object.keys(run.settings)))];
  const text = (value) => (value === undefined ? "–" : write(value));
  const different = names.filter((name) => new Set(chosen.map((run) => text(run.settings[name]))).size > 1);
  const metrics = [...new Set(chosen.flatMap((run) => Object.keys(run.metrics.test ?? {})))];
  const best = (name) => Math.max(...chosen.map((run) => run.metrics.test?.[name] ?? -Infinity));
  return place.replaceChildren(el("div", { class: "charts" },
    el("div", { class: "panel" }, el("h2", {}, "Test metrics"), el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Test metrics" },
      table(["Metric", ...chosen.map((run) => run.name)], metrics.map((name) => [name, ...chosen.map((run) => {
        const value = run.metrics.test?.[name];
        return value === best(name) ? el("b", {}, short(value)) : short(value);
      })])))),
    el("div", { class: "panel" }, el("h2", {}, "Settings that differ"), different.length
      ? el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Settings that differ" }, table(["Setting", ...chosen.map((run) => run.name)], different.slice(0, 40).map((name) => [name, ...chosen.map((run) => text(run.settings[name]))])))
      : el("p", { class: "small" }, `None of ${whole(names.length)}.`))));
}

/**
 * Show the report of a run within this page. It is a page with its own styles: they are put into a shadow root, where
 * they touch nothing else, and set by scripts, since the page's security policy forbids styles in HTML.
 */
async function showReport(name, signal) {
  const place = byId("report");
  const run = state.runs.find((one) => one.name === name);
  if (!run?.report) return place.replaceChildren();
  let source;
  try {
    source = await text(`/v1/runs/${encodeURIComponent(name)}/report`, signal);
  } catch (error) {
    return showError(place, error);
  }
  const styles = [...source.matchAll(/<style[^>]*>([\s\S]*?)<\/style>/g)].map(([, css]) => css.replaceAll(":root", ":host").replace(/(^|\})\s*body\s*\{/g, "$1 .body {"));
  const plain = source.replace(/<style[^>]*>[\s\S]*?<\/style>/g, "").replace(/<script[\s\S]*?<\/script>/gi, "").replace(/\sstyle="/g, ' data-style="');
  const body = new DOMParser().parseFromString(plain, "text/html").body;
  const host = el("div", { class: "report" });
  const root = host.attachShadow({ mode: "open" });
  const all = [...styles, ".body { padding: 0; max-width: none; margin: 0 } .scroll { background: none } th:first-child { background: var(--surface) }"];
  root.adoptedStyleSheets = all.map((css) => { const sheet = new CSSStyleSheet(); sheet.replaceSync(css); return sheet; });
  const inside = el("div", { class: "body" }, ...body.childNodes);
  for (const one of inside.querySelectorAll("[data-style]")) one.style.cssText = one.dataset.style;
  for (const one of inside.querySelectorAll("h1")) one.replaceWith(el("h2", {}, ...one.childNodes));
  root.append(inside);
  return place.replaceChildren(el("details", { class: "panel", open: true }, el("summary", {}, `Report of ${name}`), host));
}
