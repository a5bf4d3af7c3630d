// Why an item is in the list: the shares of its score, and what each stage did with it.

import { features, picture, titleOf, valued } from "./cards.js";
import { bar, byId, dataText, el, fill, percent, short, unseen } from "./dom.js";

const KINDS = { history: "what the person had", user: "the person", item: "the item" };
const LEARNED = { "user identity.id": "earlier choices (learned)", "item identity.id": "who had it (learned)" };
const LEAST = 0.01; // share of a kind of reasons that a card shows
const SHOWN = 12; // reasons one by one; the rest in one line

/** Return the legend of the colours and shapes of the kinds of reasons. */
export const kindsOfReasons = () => Object.entries(KINDS).map(([kind, name]) => el("span", { class: `key ${kind}` }, name));

/** Return the shares of the score as a bar, and a line for each kind of reason with the main ones. */
export function summary(item) {
  const kinds = kindsOf(item);
  if (!kinds.length) return dataText("p", item.explanation?.sentence ?? "", { class: "card-why small clamped" });
  return el("div", { class: "card-why" },
    el("span", { class: "shares", "aria-hidden": "true" }, kinds.map(({ kind, share }) => {
      const part = el("span", { class: `share ${kind}` });
      part.style.flexGrow = share;
      return part;
    })),
    el("ul", { class: "why" }, kinds.map(({ kind, share, names }) => el("li", { class: kind, title: `${KINDS[kind]}: ${names.slice(0, SHOWN).join(", ")}` },
      unseen(`${KINDS[kind]}: `), dataText("span", `${kind === "history" ? "had " : ""}${names.slice(0, 3).join(", ")}`), el("span", { class: "number" }, percent(share))))));
}

function kindsOf(item) {
  const found = (item.explanation?.reasons ?? []).filter((one) => one.share > 0);
  return Object.keys(KINDS).map((kind) => {
    const own = found.filter((one) => one.kind === kind);
    return { kind, share: own.reduce((sum, one) => sum + one.share, 0), names: own.map(briefly) };
  }).filter(({ share }) => share >= LEAST);
}

/** Return a reason: a picture is named by its feature, and the learned vector of an id by what it is. */
function nameOf(reason) {
  const learned = LEARNED[`${reason.kind} ${reason.name}`];
  if (learned) return learned;
  if (reason.kind === "history") return reason.told;
  return String(reason.name).startsWith("image.") ? "picture" : reason.told.replaceAll("_", " ");
}

/** Return a reason in few words: `musician` instead of `occupation musician`. */
function briefly(reason) {
  const [group, name] = String(reason.name).split(".", 2);
  if (!reason.told.startsWith(`${name} `)) return nameOf(reason);
  const value = reason.told.slice(name.length + 1);
  return group === "continuous" ? valued(name, Number(value)) : group === "categorical" ? valued(name, value) : nameOf(reason);
}

/** Open the dialog with all that is known of why an item has its place. */
export function openWhy(item, answer) {
  const title = titleOf(item.item_id);
  const all = (item.explanation?.reasons ?? []).filter((one) => one.share > 0);
  const known = features(item.fields ?? {});
  const rest = all.slice(SHOWN).reduce((sum, one) => sum + one.share, 0);
  fill(byId("why-inside"),
    el("div", { class: "why-head" }, picture(item.item_id, item.fields ?? {}, "items", 128),
      el("div", {}, dataText("h2", `Why ${title}?`, { id: "why-title" }), el("p", { class: "small" }, `Place ${item.rank}, score ${short(item.score)}. `,
        el("a", { href: `#items/${encodeURIComponent(item.item_id)}`, onclick: () => byId("why").close() }, "Open the item")))),
    all.length > 0 && el("h3", {}, "Shares of the score"),
    all.length > 0 ? el("ul", { class: "bars reasons" }, all.slice(0, SHOWN).map((one) => el("li", { class: one.kind },
      dataText("span", one.kind === "history" ? `had ${nameOf(one)}` : nameOf(one), { title: nameOf(one) }), unseen(`(${KINDS[one.kind]})`), bar(one.share), el("span", { class: "number" }, percent(one.share)))))
      : dataText("p", item.explanation?.sentence ?? ""),
    rest > 0 && el("p", { class: "small" }, `And ${all.length - SHOWN} other reasons, together ${percent(rest)}.`),
    all.length > 0 && el("p", { class: "small" }, "A share is how much the score falls if the model does not see this part. The parts are of: ", kindsOfReasons()),
    el("h3", {}, "What each stage did"),
    el("ol", { class: "steps" }, steps(item.item_id, answer).map((step) => el("li", {}, step))),
    known && [el("h3", {}, "Features of the item"), known]);
  byId("why").showModal();
}

function steps(id, answer) {
  const found = (answer.trace ?? []).filter((one) => one.item_id === id && one.event !== "barred").map(step);
  return found.length ? found : ["The model put it here."];
}

function step(one) {
  const score = one.score === null ? "" : ` (score ${short(one.score)})`;
  if (one.event === "source") return `The source “${one.by}” found it at place ${one.rank}${score}.`;
  if (one.event === "stage") return `After “${one.by}” it had place ${one.rank}${score}.`;
  if (one.event === "moved") return `The rule “${one.by}” moved it from place ${one.before} to ${one.rank}.`;
  if (one.event === "added") return `The rule “${one.by}” added it at place ${one.rank}.`;
  if (one.event === "removed") return `The rule “${one.by}” removed it from place ${one.before}.`;
  return `${one.by}: ${short(one.score)}`;
}

export const leftOut = (answer, most = 20) => answer.trace.filter((one) => one.event === "barred" || one.event === "removed").slice(0, most);

/** Show how long each stage took, and the items that were left out. */
export function showStages(answer) {
  const latency = Object.entries(answer.latency_ms).filter(([stage]) => stage !== "total");
  const out = leftOut(answer);
  fill(byId("stages-inside"),
    el("ol", { class: "pipeline" }, latency.map(([stage, value]) => el("li", {}, el("b", {}, stage), el("span", {}, `${value.toFixed(1)} ms`)))),
    el("p", { class: "small" }, `${answer.latency_ms.total.toFixed(1)} ms in all, by the model “${answer.model.name}”${answer.variant && answer.variant !== "default" ? `, variant “${answer.variant}”` : ""}.`),
    out.length > 0 && [el("h3", {}, "Left out"), el("ul", { class: "plain" }, out.map((one) =>
      dataText("li", `${titleOf(one.item_id)}: ${one.by === "seen" ? "the person had it" : `by “${one.by}”`}${one.rank ? ` (place ${one.rank} without this)` : ""}`)))]);
}
