// Elements and texts. Nothing here sets HTML from strings: all text of the data is text.

const shown = (child) => child !== null && child !== undefined && child !== false;

/** Return an element. Properties that start with "on" are listeners; `class`, `data-*` and `aria-*` are attributes. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (!shown(value)) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.includes("-") && name !== "list") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter(shown));
  return made;
}

/** Replace the content of an element. Nothing is shown of children that are null or false. */
export function fill(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter(shown));
}

export const byId = (id) => document.getElementById(id);

/** Return text of the data, which is in any language: its direction follows from its letters. */
export const dataText = (tag, text, properties = {}) => el(tag, { dir: "auto", ...properties }, String(text));

/** Return text that only readers of the screen hear, which completes the text of a short button. */
export const unseen = (text) => el("span", { class: "visually-hidden" }, ` ${text}`);

/** Let screen readers say a text: the last one of those that come shortly after each other. */
export const say = debounced((text) => { byId("status").textContent = text; }, 700);

export const count = (number, noun, nouns = `${noun}s`) => `${whole(number)} ${number === 1 ? noun : nouns}`;

export const whole = (number) => Math.round(number).toLocaleString("en");

export const percent = (share) => (share > 0 && share < 0.01 ? "<1\u00a0%" : `${Math.round(100 * share)}\u00a0%`);

/** Return a number with about three significant digits. */
export function short(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  if (Number.isInteger(number)) return number.toLocaleString("en", { useGrouping: Math.abs(number) >= 10_000 }); // years
  const size = Math.abs(number);
  return number.toLocaleString("en", size >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
}

/** Return a metric with three decimals, so that the values of a column can be compared. */
export const metric = (value) => (typeof value === "number" && Number.isFinite(value) ? value.toFixed(3) : "–");

export const label = (name) => name.split(".").slice(1).join(".").replaceAll("_", " ") || name;

/** Return a function that runs the last call once no call came for a while. */
export function debounced(action, milliseconds = 250) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), milliseconds);
  };
}

/** Return a function that runs an action: at once, or as soon as the run that is under way has ended. */
export function oneAtATime(action) {
  let running = false, again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        await action();
      }
    } finally {
      running = false;
    }
  };
}

/** Update elements, and return the focus to the new element with the same `data-focus`, or else to another one. */
export function keepFocus(update, otherwise = () => undefined) {
  const key = document.activeElement?.dataset.focus;
  update();
  if (key === undefined || document.activeElement !== document.body) return;
  const again = document.querySelector(`[data-focus="${CSS.escape(key)}"]`) ?? otherwise();
  again?.focus({ preventScroll: true });
}

/** Show the error of a request where its result would be. Requests that were superseded have no error. */
export function showError(place, error, again) {
  if (error.name === "AbortError") return;
  fill(place, el(place.matches("ol, ul") ? "li" : "div", { class: "notice", role: "alert" }, el("p", {}, error.message || String(error)),
    again && el("button", { type: "button", class: "quiet", onclick: again }, "Try again")));
}

/** Return a table in a box that scrolls, with a name. */
export function table(name, header, rows, options = {}) {
  return el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": name, "data-focus": name }, el("table", options,
    el("thead", {}, el("tr", {}, header.map((one) => el("th", { scope: "col" }, one)))),
    el("tbody", {}, rows.map(([first, ...rest]) =>
      el("tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, cell)))))));
}

/** Return a bar that shows a share from 0 to 1. */
export function bar(share, title = "") {
  const inside = el("span", { class: "bar-inside" });
  inside.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: "bar", title }, inside);
}
