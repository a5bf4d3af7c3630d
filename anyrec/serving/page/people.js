// People: a known or a new person, the session, and the list with its reasons.

import { call, post } from "./api.js";
import { aboutOf, card, features as featureList, picture, picturesOf, recordOf, remember, titleOf } from "./cards.js";
import { bar, byId, count, debounced, el, fill, percent, say, short, showError, unseen } from "./dom.js";
import { makeForm } from "./form.js";

const KINDS = { history: "what they had", user: "the person", item: "the item" };
const WORDS = { history: "had ", user: "", item: "" };
const FOUND = 30;
const LEFT_OUT = 20;
const state = { user: null, fresh: false, session: [], ranks: new Map(), form: null, answer: null };
const loading = new Map();
let asked = new AbortController();
let section;

export async function openPeople(signal) {
  section = signal;
  signal.addEventListener("abort", () => asked.abort());
  if (state.form) {
    refresh();
    return;
  }
  try {
    const { user } = await call("/v1/features", { signal });
    state.form = makeForm(user, debounced(refresh, 200));
  } catch (error) {
    showError(byId("who"), error);
    return;
  }
  byId("fields").append(state.form.element);
  byId("new-person").addEventListener("submit", (event) => event.preventDefault());
  byId("new-person").addEventListener("reset", (event) => {
    event.preventDefault();
    state.form.fill({});
    refresh();
  });
  byId("example-person").addEventListener("click", fillExample);
  byId("known-tab").addEventListener("click", () => choose(false));
  byId("new-tab").addEventListener("click", () => choose(true));
  byId("list-length").addEventListener("change", refresh);
  byId("user-search").addEventListener("input", debounced(findPeople));
  await findPeople();
}

async function findPeople() {
  const place = byId("user-list");
  try {
    const found = await call(`/v1/users?k=${FOUND}&q=${encodeURIComponent(byId("user-search").value)}`);
    place.replaceChildren(...found.users.map((user) => person(user)));
    byId("user-count").textContent = count(found.total, "person").replace("persons", "people");
    if (state.user === null && !state.fresh && found.users.length) select(found.users[0].user_id);
  } catch (error) {
    showError(place, error);
  }
}

function person(user) {
  return el("li", {}, el("button", {
    type: "button", "data-user": String(user.user_id), "aria-pressed": String(user.user_id === state.user), onclick: () => select(user.user_id),
  }, el("b", {}, String(user.user_id)), el("span", {}, aboutOf(user))));
}

function select(id) {
  state.user = id;
  state.ranks.clear();
  state.session = [];
  for (const one of byId("user-list").querySelectorAll("button")) one.setAttribute("aria-pressed", String(one.dataset.user === String(id)));
  refresh();
}

function choose(fresh) {
  state.fresh = fresh;
  state.ranks.clear();
  byId("new-tab").setAttribute("aria-pressed", String(fresh));
  byId("known-tab").setAttribute("aria-pressed", String(!fresh));
  byId("new-person").hidden = !fresh;
  byId("known-person").hidden = fresh;
  refresh();
}

/** Copy a person of the data into the form. */
async function fillExample() {
  const { total } = await call("/v1/users?k=1");
  const { users } = await call(`/v1/users?k=1&offset=${Math.floor(Math.random() * total)}`);
  edit(users[0]);
}

function edit(record) {
  state.form.fill(record);
  if (!state.fresh) choose(true);
  else refresh();
}

/** Ask for the list of the present person with the present session, and show it. */
async function refresh() {
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  const query = { k: Number(byId("list-length").value), fields: true, explain: true, trace: true, history: state.session };
  if (state.fresh) {
    const { user, images } = state.form.read();
    if (Object.keys(user).length) query.user = user;
    if (Object.keys(images).length) query.images = images;
  } else if (state.user !== null) {
    query.user_id = state.user;
  }
  try {
    const [answer] = await Promise.all([post("/v1/recommend", query, signal), showWho(signal)]);
    if (signal.aborted || section.aborted) return;
    state.answer = answer;
    showList(answer);
  } catch (error) {
    showError(byId("list-notes"), error);
  }
}

async function showWho(signal) {
  const place = byId("who");
  showSession();
  if (state.fresh || state.user === null) {
    place.replaceChildren(el("h2", {}, "A new person"), el("p", { class: "small" },
      "The model has never seen this person. It answers from the features in the form and the items of the session."));
    return;
  }
  const user = await call(`/v1/users/${encodeURIComponent(state.user)}`, { signal });
  const had = [...new Set([...user.history, ...user.events.map((event) => event.item_id)])].slice(-8).reverse();
  await load(had);
  if (signal.aborted) return;
  const photo = picturesOf(state.user, user, "users").length ? picture(state.user, user, "users", 128) : null;
  const bio = Object.values(user.text || {}).flat()[0];
  fill(place,
    el("div", { class: "list-head" },
      el("h2", {}, photo, String(user.user_id)),
      el("button", { type: "button", class: "quiet", onclick: () => edit(user) }, "Change this person")),
    el("p", { class: "about" }, aboutOf(user, 6)),
    bio ? el("blockquote", {}, bio) : null,
    had.length ? el("p", { class: "small" }, user.events.length ? `Had lately (${count(user.events.length, "event")} since training)` : "Had lately") : null,
    el("ul", { class: "thumbs" }, had.map((id) => el("li", {}, el("a", { href: `#items/${encodeURIComponent(id)}`, title: titleOf(id) },
      picture(id, recordOf(id), "items", 96), el("span", { class: "thumb-title" }, titleOf(id)))))));
}

/** Read the records of items that are not known yet, each of them once. */
function load(ids) {
  const missing = ids.filter((id) => !loading.has(id) && !Object.keys(recordOf(id)).length);
  for (const id of missing) {
    loading.set(id, call(`/v1/items/${encodeURIComponent(id)}`).then((record) => remember(id, record), () => {}));
  }
  return Promise.all(ids.map((id) => loading.get(id)));
}

function showSession() {
  byId("session").replaceChildren(
    el("span", { class: "session-name" }, "Session"),
    state.session.length
      ? el("ul", { class: "chips" }, state.session.map((id) => el("li", {}, el("button", {
        type: "button", class: "chip",
        onclick: () => { state.session = state.session.filter((one) => one !== id); refresh(); },
      }, picture(id, recordOf(id), "items", 64), titleOf(id), el("span", { "aria-hidden": "true" }, " ×"), unseen("remove from the session")))))
      : el("span", { class: "small" }, "Add items of the list to see how the next list changes."));
}

function showList(answer) {
  const notes = answer.fallback ? [answer.fallback_reason] : answer.warnings;
  byId("list-notes").replaceChildren(...[...new Set(notes)].map((note) => el("p", { class: "notice" }, `${note[0].toUpperCase()}${note.slice(1)}`)));
  byId("list-title").textContent = state.fresh ? "Recommended to this new person" : state.user === null ? "Recommended" : `Recommended to ${state.user}`;
  for (const item of answer.items) remember(item.item_id, item.fields || {});
  const first = state.ranks.size === 0;
  byId("list").replaceChildren(...answer.items.map((item) => listed(item, answer, first)));
  const changed = answer.items.filter((item) => state.ranks.get(item.item_id) !== item.rank).length;
  if (!first) say(`${count(changed, "place")} of the list changed. First: ${answer.items.map((item) => titleOf(item.item_id))[0]}`);
  state.ranks = new Map(answer.items.map((item) => [item.item_id, item.rank]));
  load(leftOut(answer).map((one) => one.item_id)).then(() => {
    if (state.answer === answer) showStages(answer);
  });
}

function listed(item, answer, first) {
  const before = state.ranks.get(item.item_id);
  const moved = first || before === item.rank ? null
    : before === undefined ? el("span", { class: "move new" }, "new")
    : el("span", { class: before > item.rank ? "move up" : "move down" }, `${before > item.rank ? "▲" : "▼"} ${Math.abs(before - item.rank)}`);
  const badge = el("span", { class: "badges" }, el("span", { class: "rank" }, String(item.rank)), moved);
  const title = titleOf(item.item_id);
  const buttons = el("div", { class: "row" },
    el("button", { type: "button", onclick: () => { state.session.push(item.item_id); refresh(); } }, "+ Session", unseen(`with ${title}`)),
    !state.fresh && state.user !== null
      ? el("button", { type: "button", class: "quiet", onclick: () => record(item, answer) }, "Took it", unseen(`: ${state.user} took ${title}`)) : null);
  return card(item.item_id, item.fields || {}, {
    badge,
    onopen: () => { location.hash = `items/${encodeURIComponent(item.item_id)}`; },
    extra: [reasons(item), buttons, why(item, answer)],
  });
}

/** Send an event: the person's next list follows it, like after any event of a shop. */
async function record(item, answer) {
  const event = { event_id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, user_id: state.user, item_id: item.item_id, recommendation_id: answer.recommendation_id };
  try {
    await post("/v1/events", { events: [event] });
    say(`Recorded: ${titleOf(item.item_id)}.`);
    refresh();
  } catch (error) {
    showError(byId("list-notes"), error);
  }
}

/** Return the shares of the score by kind of reason, and the main reasons. */
function reasons(item) {
  const found = (item.explanation?.reasons || []).filter((one) => one.share > 0);
  if (!found.length) return el("p", { class: "card-why small" }, item.explanation?.sentence || "");
  const sums = Object.keys(KINDS).map((kind) => [kind, found.filter((one) => one.kind === kind).reduce((sum, one) => sum + one.share, 0)]);
  const text = sums.filter(([, share]) => share > 0).map(([kind, share]) => `${KINDS[kind]} ${percent(share)}`).join(", ");
  const shares = el("span", { class: "shares", role: "img", "aria-label": `Because of ${text}` }, sums.map(([kind, share]) => {
    const part = el("span", { class: `share ${kind}`, title: `${KINDS[kind]}: ${percent(share)}` });
    part.style.flexGrow = share;
    return part;
  }));
  return el("div", { class: "card-why" }, shares, el("ul", { class: "why" }, found.slice(0, 3).map((one) =>
    el("li", { class: one.kind }, el("span", {}, `${WORDS[one.kind]}${told(one)}`), el("span", { class: "number" }, percent(one.share))))));
}

/** Return a reason in few words. A picture is named by its feature, and the learned vector of an id by what it is. */
function told(reason) {
  if (String(reason.name).startsWith("image.")) return "picture";
  return reason.told.replaceAll("_", " ").replace(", as the model learned it", "");
}

function why(item, answer) {
  const inside = el("div", { class: "why-inside" });
  const made = el("details", { class: "card-details" }, el("summary", {}, "Why this one", unseen(titleOf(item.item_id))), inside);
  made.addEventListener("toggle", () => {
    if (!made.open || inside.childNodes.length) return;
    const all = (item.explanation?.reasons || []).filter((one) => one.share > 0.005);
    inside.append(
      el("h3", {}, "Share of the score"),
      el("ul", { class: "bars" }, all.map((one) => el("li", { class: one.kind }, el("span", {}, `${WORDS[one.kind]}${told(one)}`), bar(one.share), el("span", { class: "number" }, percent(one.share))))),
      el("p", { class: "small" }, "How much the score falls if the model does not see this part."),
      el("h3", {}, "What each stage did"),
      el("ol", { class: "steps" }, steps(item.item_id, answer).map((step) => el("li", {}, step))),
      el("h3", {}, "Features"), featureList(item.fields || {}));
  }, { passive: true });
  return made;
}

function steps(id, answer) {
  const found = (answer.trace || []).filter((one) => one.item_id === id && one.event !== "barred").map(step);
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

const leftOut = (answer) => answer.trace.filter((one) => one.event === "barred" || one.event === "removed").slice(0, LEFT_OUT);

function showStages(answer) {
  const latency = Object.entries(answer.latency_ms).filter(([stage]) => stage !== "total");
  const out = leftOut(answer);
  const left = out.length > 0;
  fill(byId("stages-inside"),
    el("ol", { class: "pipeline" }, latency.map(([stage, value]) => el("li", {}, el("b", {}, stage), el("span", {}, `${value.toFixed(1)} ms`)))),
    el("p", { class: "small" }, `${answer.latency_ms.total.toFixed(1)} ms in all, by the model “${answer.model.name}”.`),
    left && el("h3", {}, "Left out"),
    left && el("ul", { class: "plain" }, out.map((one) =>
      el("li", {}, `${titleOf(one.item_id)}: ${one.by === "seen" ? "the person had it" : `by “${one.by}”`}${one.rank ? ` (place ${one.rank} without this)` : ""}`))));
}
