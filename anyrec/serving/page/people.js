// People: which person it is, known or composed, and the session. The address says both (`address.js`).

import { address, decoded, goTo, note, readList } from "./address.js";
import { call } from "./api.js";
import { aboutOf, personOf, picture, picturesOf, recordOf, thumbs, titleOf, features } from "./cards.js";
import { byId, count, dataText, debounced, el, fill, keepFocus, showError, unseen } from "./dom.js";
import { makeForm } from "./form.js";
import { read } from "./json.js";
import { load, showList } from "./list.js";

const FOUND = 30;
const FACTS = 8; // features of the person in the heading
const LATEST = 12; // items that the person had
const NEW = "The model has never seen this person. The list follows from the form and the session.";
const NOBODY = "Nothing is known of this person yet, so these are popular items. Fill in the form, or add items to the session.";
const state = { form: null, fresh: false, user: undefined, session: [], found: 0 };
const users = new Map(); // records by id as text: an id of the address has no type
let section;

export async function openPeople(signal, { name, parts }) {
  section = signal;
  try {
    state.form ?? await prepare(signal);
    state.fresh = name === "new";
    showTabs();
    if (state.fresh) compose(parts[0]);
    else state.user = parts[0] ? decoded(parts[0]) : state.user ?? firstFound();
    state.session = readList(parts[1]);
    await load(state.session);
    state.session = state.session.filter((id) => recordOf(id).item_id !== undefined); // items that are gone
    if (signal.aborted) return;
    showSession();
    mark();
    if (!state.fresh && state.user !== undefined) await readUser(signal);
    showWho();
    list(true);
  } catch (error) {
    if (error.name !== "AbortError") fill(byId("list"));
    if (error.status === 404) showError(byId("who"), new Error(`${error.message} Choose another person.`));
    else showError(byId("who"), error, () => openPeople(signal, { name, parts }));
  }
}

/** Make the form and the first list of people, once. */
async function prepare(signal) {
  const [{ user }] = await Promise.all([call("/v1/features", { signal }), findPeople()]);
  state.form = makeForm(user, () => { note(here()); list(); });
  byId("fields").append(state.form.element);
  byId("new-person").addEventListener("submit", (event) => event.preventDefault());
  byId("new-person").addEventListener("reset", (event) => {
    event.preventDefault();
    state.form.fill({});
    goTo(address("new", "", state.session));
  });
  byId("example-person").addEventListener("click", () => example().catch((error) => showError(byId("who"), error)));
  byId("example-person").hidden = byId("clear-person").hidden = !state.form.size;
  byId("known-tab").addEventListener("click", () => goTo(address("people", state.user ?? "", state.session)));
  byId("new-tab").addEventListener("click", () => goTo(address("new", state.form.text(), state.session)));
  byId("list-length").addEventListener("change", () => list());
  byId("user-search").addEventListener("input", debounced(() => findPeople()));
  byId("more-people").addEventListener("click", () => findPeople(true));
  byId("strip").addEventListener("click", () => { byId("list-title").scrollIntoView(); byId("list-title").focus(); });
}

const here = () => (state.fresh ? address("new", state.form.text(), state.session) : address("people", state.user ?? "", state.session));

const firstFound = () => byId("user-list").querySelector("button")?.dataset.user;

async function findPeople(more = false) {
  const place = byId("user-list");
  state.found = more ? state.found + FOUND : 0;
  try {
    const words = byId("user-search").value;
    const found = await call(`/v1/users?k=${FOUND}&offset=${state.found}&q=${encodeURIComponent(words)}`);
    if (words !== byId("user-search").value) return;
    if (!more) fill(place);
    place.append(...found.users.map(person));
    byId("user-count").textContent = found.total ? count(found.total, "person", "people") : `Nobody is found for “${words}”. Try an id or another word.`;
    byId("more-people").hidden = state.found + FOUND >= found.total;
    mark();
  } catch (error) {
    showError(place, error, () => findPeople());
  }
}

function person(user) {
  users.set(String(user.user_id), user);
  return el("li", {}, el("button", {
    type: "button", "data-user": String(user.user_id), onclick: () => goTo(address("people", String(user.user_id))),
  }, dataText("b", titleOf(user.user_id, user)), dataText("span", aboutOf(user))));
}

/** Mark the person of the list in the search. */
function mark() {
  for (const one of byId("user-list").querySelectorAll("button")) one.setAttribute("aria-pressed", String(one.dataset.user === state.user));
}

function showTabs() {
  byId("new-tab").setAttribute("aria-pressed", String(state.fresh));
  byId("known-tab").setAttribute("aria-pressed", String(!state.fresh));
  byId("new-person").hidden = byId("strip").hidden = !state.fresh;
  byId("known-person").hidden = state.fresh;
}

/** Fill the form with the record of the address, if it has another one. */
function compose(part) {
  const text = decoded(part);
  if (text === state.form.text()) return;
  try {
    state.form.fill(text ? read(text) : {});
  } catch {
    state.form.fill({}); // not an address of this page
  }
}

/** Copy a person of the data into the form. */
async function example() {
  const { total } = await call("/v1/users?k=1");
  const { users: [found] } = await call(`/v1/users?k=1&offset=${Math.floor(Math.random() * total)}`);
  edit(found);
}

function edit(record) {
  state.form.fill(record);
  goTo(address("new", state.form.text(), state.session));
}

async function readUser(signal) {
  const user = await call(`/v1/users/${encodeURIComponent(state.user)}`, { signal });
  users.set(state.user, user);
  await load(latest(user));
}

const latest = ({ history = [], events = [] }) => [...new Set([...history, ...events.map((event) => event.item_id)].map(String))].slice(-LATEST).reverse();

function showWho(answer) {
  const place = byId("who"), user = users.get(state.user);
  if (state.fresh || user === undefined) {
    fill(place, el("h2", {}, state.fresh ? "A new person" : "Nobody in particular"),
      el("p", { class: "small", "data-note": answer?.fallback ? "nobody" : "known" }, answer?.fallback ? NOBODY : NEW));
    return;
  }
  const had = latest(user), bio = Object.entries(user.text ?? {}).filter(([name]) => name !== "name" && name !== "title").flatMap(([, value]) => value)[0];
  const photo = picturesOf(state.user, user, "users").length ? picture(state.user, user, "users", 128) : null;
  const facts = features({ categorical: user.categorical ?? {}, continuous: user.continuous ?? {} }, { most: FACTS });
  facts?.classList.add("facts");
  keepFocus(() => fill(place,
    el("div", { class: "list-head" },
      el("h2", {}, photo, dataText("span", personOf(state.user, user, "Person"))),
      state.form.size > 0 && el("button", { type: "button", class: "quiet", "data-focus": "edit", onclick: () => edit(user) }, "Change this person")),
    facts,
    bio && dataText("blockquote", bio, { class: "clamped" }),
    answer?.fallback && el("p", { class: "small" }, "Nothing is known of this person yet, so these are popular items."),
    had.length > 0 && el("h3", {}, user.events.length ? `Latest items (${count(user.events.length, "event")} since training)` : "Latest items"),
    had.length > 0 && thumbs(had, { class: "thumbs line" })));
}

function showSession() {
  const change = (items) => goTo(state.fresh ? address("new", state.form.text(), items) : address("people", state.user ?? "", items));
  keepFocus(() => fill(byId("session"),
    el("span", { class: "session-name" }, "Session"),
    state.session.length
      ? [el("ul", { class: "chips" }, state.session.map((id, n) => el("li", {}, el("button", {
        type: "button", class: "chip", "data-focus": `chip ${n}`, onclick: () => change(state.session.filter((one) => one !== id)),
      }, picture(id, recordOf(id), "items", 64), dataText("span", titleOf(id)), el("span", { "aria-hidden": "true" }, "×"), unseen("remove from the session"))))),
      state.session.length > 1 && el("button", { type: "button", class: "link", "data-focus": "empty", onclick: () => change([]) }, "Empty it")]
      : el("span", { class: "small" }, "“+ Session” changes this list alone. “Took it” sends an event to the server, as a shop does.")),
  () => byId("session").querySelector("button:last-of-type") ?? byId("list-title"));
}

/** Show the list of the present person with the present session. now: it is of another person than before. */
function list(now = false) {
  const user = users.get(state.user), signal = section;
  const named = !state.fresh && user !== undefined;
  showList({
    name: state.fresh ? "new" : `user ${state.user}`,
    title: state.fresh ? "Recommended to this new person" : named ? `Recommended to ${personOf(state.user, user)}` : "Recommended",
    query() {
      const { user: record, images } = state.fresh ? state.form.read() : { user: {}, images: {} };
      return {
        history: state.session.map((id) => recordOf(id).item_id),
        ...(named ? { user_id: user.user_id } : {}),
        ...(Object.keys(record).length ? { user: record } : {}),
        ...(Object.keys(images).length ? { images } : {}),
      };
    },
    told(answer) { if (!named || answer.fallback) showWho(answer); },
    add(item) {
      const session = [...state.session.filter((id) => id !== String(item.item_id)), String(item.item_id)];
      goTo(state.fresh ? address("new", state.form.text(), session) : address("people", state.user ?? "", session));
    },
    took: named ? () => openPeople(signal, { name: "people", parts: here().split("/").slice(1) }) : undefined,
  }, signal, now);
}
