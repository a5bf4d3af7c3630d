// A field for a category with many values: type some letters, choose with the arrow keys and Enter or the mouse.

import { call } from "./api.js";
import { count, debounced, el, fill } from "./dom.js";

const SHOWN = 20;
const UNKNOWN = "The training data do not have this value: the model treats it as unknown.";

/** Return a field: its `element`, `read()` for the value or values, and `write(value)`. */
export function chooser(feature, id, onchange) {
  let chosen = [], options = [], active = -1, asked = 0;
  const chips = el("ul", { class: "chips", hidden: true });
  const hint = el("p", { class: "small", id: `${id}-hint` });
  const list = el("ul", { role: "listbox", id: `${id}-list`, class: "options", hidden: true, "aria-label": "Values" });
  const input = el("input", {
    id, role: "combobox", autocomplete: "off", dir: "auto", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list",
    "aria-describedby": hint.id, placeholder: `Search ${count(feature.known, "value")}`,
    oninput: debounced(search, 120), onfocus: search, onblur: leave, onkeydown: key,
  });

  async function search() {
    const words = input.value === chosen[0] && !feature.many ? "" : input.value.trim();
    const mine = ++asked;
    const found = feature.known > feature.values.length ? await remote(words) : local(words);
    if (mine !== asked || document.activeElement !== input) return;
    options = found.values;
    active = words && options.length ? 0 : -1;
    fill(list, options.map((value, n) => el("li", { role: "option", id: `${id}-${n}`, dir: "auto", onpointerdown: (event) => { event.preventDefault(); take(value); } }, value)));
    if (found.total > options.length) list.append(el("li", { class: "small", role: "presentation" }, `${count(found.total - options.length, "more value")}: type more letters`));
    open(options.length > 0);
  }

  function local(words) {
    const wanted = words.toLowerCase(), all = feature.values.filter((one) => one.toLowerCase().includes(wanted));
    const begins = (one) => one.toLowerCase().startsWith(wanted);
    return { values: [...all.filter(begins), ...all.filter((one) => !begins(one))].slice(0, SHOWN), total: all.length };
  }

  const remote = (words) => call(`/v1/features/values?feature=${encodeURIComponent(feature.name)}&k=${SHOWN}&q=${encodeURIComponent(words)}`)
    .catch(() => local(words));

  function open(on) {
    list.hidden = !on;
    input.setAttribute("aria-expanded", String(on));
    [...list.querySelectorAll("[role=option]")].forEach((one, n) => {
      one.setAttribute("aria-selected", String(n === active));
      if (n === active) one.scrollIntoView({ block: "nearest" });
    });
    if (on && active >= 0) input.setAttribute("aria-activedescendant", `${id}-${active}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && list.hidden) search();
    else if (step && options.length) {
      active = (active + step + options.length) % options.length;
      open(true);
    } else if (event.key === "Enter") take(active >= 0 && !list.hidden ? options[active] : input.value.trim());
    else if (event.key === "Escape" && !list.hidden) open(false);
    else if (event.key === "Backspace" && feature.many && !input.value) set(chosen.slice(0, -1));
    else return;
    event.preventDefault();
  }

  /** Take what was typed as the value when the field is left. */
  function leave() {
    open(false);
    const typed = input.value.trim();
    if (feature.many ? typed : typed !== (chosen[0] ?? "")) take(typed);
  }

  function take(value) {
    set(feature.many ? [...new Set([...chosen, value].filter(Boolean))] : [value].filter(Boolean));
    open(false);
  }

  async function set(values, silent = false) {
    chosen = values;
    input.value = feature.many ? "" : values[0] ?? "";
    chips.hidden = !feature.many || !values.length;
    fill(chips, values.map((one) => el("li", {}, el("button", {
      type: "button", class: "chip", "aria-label": `Remove ${one}`, onclick: () => { set(chosen.filter((each) => each !== one)); input.focus(); },
    }, el("span", { dir: "auto" }, one), el("span", { "aria-hidden": "true" }, "×")))));
    if (!silent) onchange();
    const last = values.at(-1);
    const known = last === undefined || feature.values.includes(last) || (await remote(last)).values.includes(last);
    if (last === chosen.at(-1)) hint.textContent = known ? "" : UNKNOWN;
  }

  return {
    element: el("div", { class: "chooser" }, feature.many && chips, input, list, hint),
    read: () => (chosen.length ? (feature.many ? chosen : chosen[0]) : undefined),
    write: (value) => set([value ?? []].flat().map(String), true),
  };
}
