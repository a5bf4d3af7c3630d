// Elements and texts. Nothing here sets HTML from strings: all text of the data is text.

/** Return an element. Properties that start with "on" are listeners; `class`, `data-*` and `aria-*` are attributes. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.includes("-") && name !== "list") made[name] = value;
    else made.setAttribute(name === "class" ? "class" : name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Replace the content of an element. Nothing is shown of children that are null or false. */
export function fill(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

export const byId = (id) => document.getElementById(id);

/** Return text that only readers of the screen hear, which completes the text of a short button. */
export const unseen = (text) => el("span", { class: "visually-hidden" }, ` ${text}`);

export const say = (text) => { byId("status").textContent = text; };

export const count = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;

export const whole = (number) => Math.round(number).toLocaleString("en");

export const percent = (share) => (share > 0 && share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

/** Return a number with about three significant digits. */
export function short(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  if (Number.isInteger(number)) return number.toLocaleString("en", { useGrouping: Math.abs(number) >= 10_000 }); // years
  const size = Math.abs(number);
  return number.toLocaleString("en", size >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
}

export const label = (name) => name.split(".").slice(1).join(".").replaceAll("_", " ") || name;

/** Return a function that runs the last call once no call came for a while. */
export function debounced(action, milliseconds = 250) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), milliseconds);
  };
}

/** Show the error of a request where its result would be. Requests that were superseded have no error. */
export function showError(place, error) {
  if (error.name === "AbortError") return;
  place.replaceChildren(el("p", { class: "notice", role: "alert" }, error.message || String(error)));
}

export function table(header, rows, options = {}) {
  return el("table", options,
    el("thead", {}, el("tr", {}, header.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map(([first, ...rest]) =>
      el("tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, cell))))));
}

/** Return a bar that shows a share from 0 to 1. */
export function bar(share, title = "") {
  const inside = el("span", { class: "bar-inside" });
  inside.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: "bar", title }, inside);
}
