// Training: the curves of runs, live while one trains, what differs between runs, and the report.

import { address, note, readList } from "./address.js";
import { call, follow } from "./api.js";
import { curves } from "./charts.js";
import { byId, count, el, fill, metric as shown, short, showError, table, whole } from "./dom.js";
import { write } from "./json.js";
import { showReport } from "./report.js";

const MOST = 6; // runs whose curves are drawn
const SETTINGS = 40;
const MEASURED_BY = /^(split\.|evaluation\.|data\.(min|max|positive)_)/; // runs that differ in them cannot be compared
const state = { runs: [], chosen: new Set(), epochs: new Map(), training: false };

export async function openTraining(signal, { parts }, about) {
  try {
    const { runs, current } = await call("/v1/runs", { signal });
    state.runs = runs;
    if (!runs.length) {
      fill(byId("runs"), el("p", { class: "small" }, "This model was not saved by a training run, so there are no curves."));
      return;
    }
    const wanted = readList(parts[0]).filter((name) => runs.some((run) => run.name === name));
    if (wanted.length) state.chosen = new Set(wanted);
    else if (!state.chosen.size) state.chosen.add(runs[0].name);
    state.training = about.training === true;
    await showRuns(signal);
    report(current, signal);
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
    if (same >= 0 && write(known[same]) === write(value)) return true; // the stream begins with the epochs that are there
    if (same >= 0) known[same] = value;
    else known.push(value);
  }
  if (name === "end") {
    state.training = false;
    state.runs = state.runs.map((one) => (one.name === run ? value : one));
    showRuns(signal);
    report(run, signal);
    return false;
  }
  draw();
  return true;
}

function report(name, signal) {
  if (state.runs.find((one) => one.name === name)?.report) showReport(byId("report"), name, signal);
  else fill(byId("report"));
}

async function showRuns(signal) {
  const wanted = [...state.chosen].filter((name) => !state.epochs.has(name));
  await Promise.all(wanted.map(async (name) => {
    const run = await call(`/v1/runs/${encodeURIComponent(name)}`, { signal });
    state.epochs.set(name, run.epochs);
  }));
  const metric = state.runs[0].metric;
  const rows = state.runs.map((run) => [
    el("label", { class: "run" }, el("input", { type: "checkbox", checked: state.chosen.has(run.name), onchange: (event) => toggle(run.name, event.target.checked, signal) }), run.name),
    run.settings["model.type"]?.replaceAll("_", "-") ?? "–",
    run.trained ? new Date(run.changed * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short", hour12: false }) : "in training",
    shown(run.metrics.validation?.[metric]),
    shown(run.metrics.test?.[metric]),
    shown(run.metrics.test?.["recall@10"]),
  ]);
  if (!byId("runs").querySelector("table") || state.runs.some((run) => !run.trained) || rows.length !== byId("runs").querySelectorAll("tbody tr").length) {
    fill(byId("runs"), table("Runs", ["Run", "Model", "Trained", `Validation ${metric}`, `Test ${metric}`, "Test recall@10"], rows),
      rows.length > 1 && el("p", { class: "small" }, "Check runs to compare them."));
  }
  draw();
  showDifferences();
}

function toggle(name, on, signal) {
  if (on) state.chosen.add(name);
  else state.chosen.delete(name);
  note(address("training", [...state.chosen]));
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
    delete place.dataset.charts;
    fill(place, el("p", { class: "small" }, state.training ? "The first epoch has not ended yet."
      : chosen.length ? "There are no curves: a classical model is computed in one step." : "Check a run to see its curves."));
    return;
  }
  const charts = [["Loss", (entry) => entry.loss], [`Validation ${metric}`, (entry) => entry.validation?.[metric]], ["Seconds for each epoch", (entry) => entry.seconds]];
  if (place.dataset.charts !== charts.map(([name]) => name).join()) {
    place.dataset.charts = charts.map(([name]) => name).join();
    fill(place, charts.map(([name]) => el("div", { class: "panel" }, el("h2", {}, name), el("div", { class: "chart" }))));
  }
  const epochs = Array.from({ length: longest }, (_, n) => n + 1);
  charts.forEach(([name, value], n) => {
    const series = chosen.map((run) => epochs.map((epoch) => value(state.epochs.get(run.name)?.find((one) => one.epoch === epoch) ?? {}) ?? null));
    const last = series.map((one, m) => `${chosen[m].name} ${short(one.filter((each) => each !== null).at(-1))}`).join(", ");
    curves(place.children[n].querySelector(".chart"), chosen.map((run) => run.name), [epochs, ...series], { text: `${name} after ${count(longest, "epoch")}: ${last}` });
  });
}

/** Show the metrics of the chosen runs, and the settings in which they differ. */
function showDifferences() {
  const chosen = state.runs.filter((run) => state.chosen.has(run.name));
  const place = byId("run-differences");
  if (chosen.length < 2) return fill(place);
  const names = [...new Set(chosen.flatMap((run) => Object.keys(run.settings)))];
  const text = (value) => (value === undefined ? "–" : write(value));
  const different = names.filter((name) => new Set(chosen.map((run) => text(run.settings[name]))).size > 1);
  const unlike = different.filter((name) => MEASURED_BY.test(name));
  const metrics = [...new Set(chosen.flatMap((run) => Object.keys(run.metrics.test ?? {})))];
  const best = (name) => (unlike.length ? undefined : Math.max(...chosen.map((run) => run.metrics.test?.[name] ?? -Infinity)));
  return fill(place,
    unlike.length > 0 && el("p", { class: "notice" }, `The metrics of these runs cannot be compared: they were measured in other ways (${unlike.slice(0, 5).join(", ")}${unlike.length > 5 ? ", …" : ""}).`),
    el("div", { class: "charts" },
      el("div", { class: "panel" }, el("h2", {}, "Test metrics"),
        table("Test metrics", ["Metric", ...chosen.map((run) => run.name)], metrics.map((name) => [name, ...chosen.map((run) => {
          const value = run.metrics.test?.[name];
          return value === best(name) ? el("b", {}, shown(value)) : shown(value);
        })]))),
      el("div", { class: "panel" }, el("h2", {}, "Settings that differ"), different.length
        ? [table("Settings that differ", ["Setting", ...chosen.map((run) => run.name)], different.slice(0, SETTINGS).map((name) => [name, ...chosen.map((run) => text(run.settings[name]))])),
          different.length > SETTINGS && el("p", { class: "small" }, `And ${different.length - SETTINGS} more.`)]
        : el("p", { class: "small" }, `None of ${whole(names.length)}.`))));
}
