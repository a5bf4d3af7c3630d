// The form for a new person, made from the features of the model.

import { chooser } from "./choose.js";
import { el, label, short } from "./dom.js";
import { write as asText } from "./json.js";

const MOST_OPTIONS = 12; // above it, several values are searched instead of checked
const MOST_VALUES = 60; // above it, one value is searched instead of selected
const FIRST = 12; // fields before those that are folded away
let numbered = 0;

/** Return a form of features: its `element`, its `size`, `read()`, `text()` for the address, and `fill(record)`. */
export function makeForm(features, onchange) {
  const fields = features.filter((one) => one.kind !== "items" && one.kind !== "other").map((one) => ({ feature: one, ...field(one, onchange) }));
  const first = fields.slice(0, FIRST), rest = fields.slice(FIRST);
  const read = () => {
    const user = {}, images = {};
    for (const one of fields) {
      const value = one.read();
      const [group, ...name] = one.feature.name.split(".");
      if (value === undefined) continue;
      if (one.feature.kind === "picture") images[name.join(".")] = value;
      else (user[group] ??= {})[name.join(".")] = value;
    }
    return { user, images };
  };
  return {
    size: fields.length,
    element: el("div", { class: "fields" }, first.map((one) => one.element),
      rest.length > 0 && el("details", {}, el("summary", {}, `${rest.length} more features`), el("div", { class: "fields" }, rest.map((one) => one.element))),
      !fields.length && el("p", { class: "small" }, "This model knows no features of people: it goes by the items that they had. Add items to the session.")),
    read,
    text() {
      const { user } = read();
      return Object.keys(user).length ? asText(user) : "";
    },
    fill(record) {
      for (const { feature, write } of fields) {
        const [group, ...name] = feature.name.split(".");
        write(record[group]?.[name.join(".")]);
      }
    },
  };
}

function field(feature, onchange) {
  const id = `field-${numbered++}`;
  const made = MAKERS[feature.kind](feature, id, onchange);
  if (made.group) return { ...made, element: el("fieldset", {}, el("legend", {}, label(feature.name)), made.element) };
  return { ...made, element: el("div", { class: "field" }, el("label", { htmlFor: id }, label(feature.name)), made.element) };
}

const MAKERS = { choice, number, text, picture, numbers: list, times: list };

function choice(feature, id, onchange) {
  if (feature.many && feature.known <= MOST_OPTIONS) return checks(feature, id, onchange);
  if (feature.many || feature.known > MOST_VALUES) return chooser(feature, id, onchange);
  const input = el("select", { id, onchange }, el("option", { value: "" }, "not known"), feature.values.map((one) => el("option", { value: one }, one)));
  return { element: input, read: () => input.value || undefined, write: (value) => { input.value = value ?? ""; } };
}

function checks(feature, id, onchange) {
  const boxes = feature.values.map((one) => el("input", { type: "checkbox", value: one, onchange }));
  const element = el("div", { class: "checks" }, boxes.map((box) => el("label", {}, box, box.value)));
  const read = () => { const found = boxes.filter((box) => box.checked).map((box) => box.value); return found.length ? found : undefined; };
  return { group: true, element, read, write: (value) => { for (const box of boxes) box.checked = [value ?? []].flat().map(String).includes(box.value); } };
}

function number(feature, id, onchange) {
  const { min, max, median } = feature;
  const input = el("input", { id, type: "number", step: "any", placeholder: "not known" });
  const given = { element: el("div", { class: "number-field" }, input), read: () => (input.value === "" ? undefined : Number(input.value)) };
  if (min === null || min === max) {
    input.addEventListener("input", onchange);
    return { ...given, write: (value) => { input.value = value ?? ""; } };
  }
  const whole = Number.isInteger(min) && Number.isInteger(max) && max - min > 4;
  const slider = el("input", { type: "range", min, max, step: whole ? 1 : (max - min) / 200, value: median, "aria-label": `${label(feature.name)}, slider` });
  const unset = () => slider.classList.toggle("unset", input.value === "");
  slider.addEventListener("input", () => { input.value = whole ? slider.value : Number(Number(slider.value).toPrecision(4)); unset(); onchange(); });
  input.addEventListener("input", () => { if (input.value !== "") slider.value = input.value; unset(); onchange(); });
  unset();
  given.element.append(slider, el("span", { class: "small" }, `${short(min)} to ${short(max)}`));
  return { ...given, write: (value) => { input.value = value ?? ""; slider.value = value ?? median; unset(); } };
}

function text(feature, id, onchange) {
  const input = el("textarea", { id, rows: 3, dir: "auto", placeholder: feature.examples[0] ? `For example: ${feature.examples[0]}` : "", oninput: onchange });
  return {
    element: input,
    read: () => (input.value.trim() ? (feature.many ? [input.value.trim()] : input.value.trim()) : undefined),
    write: (value) => { input.value = [value ?? []].flat().join(" "); },
  };
}

function picture(feature, id, onchange) {
  let data;
  const preview = el("img", { alt: "The picture that was chosen", class: "preview", hidden: true });
  const input = el("input", { id, type: "file", accept: "image/jpeg,image/png,image/webp,image/gif" });
  input.addEventListener("change", async () => {
    data = input.files[0] && (await base64(input.files[0]));
    preview.hidden = !data;
    if (data) preview.src = `data:${input.files[0].type};base64,${data}`;
    onchange();
  });
  input.form?.addEventListener("reset", () => { data = undefined; preview.hidden = true; });
  return { element: el("div", {}, input, preview), read: () => data, write: () => { input.value = ""; data = undefined; preview.hidden = true; } };
}

/** Numbers or times between commas. */
function list(feature, id, onchange) {
  const times = feature.kind === "times";
  const middle = feature.median === null || feature.median === undefined ? 1 : Number(feature.median.toPrecision(3));
  const hint = times ? "2024-05-01, 2024-06-15" : `${short(middle)}, ${short(middle)}, …`;
  const fault = el("p", { class: "small fault", id: `${id}-fault` });
  const input = el("input", { id, placeholder: `For example: ${hint}`, autocomplete: "off", "aria-describedby": fault.id });
  const parts = () => input.value.split(",").map((one) => one.trim()).filter(Boolean);
  const good = (one) => (times ? !Number.isNaN(Date.parse(one)) : Number.isFinite(Number(one)));
  const check = () => {
    const wrong = parts().find((one) => !good(one));
    fault.textContent = wrong === undefined ? "" : `“${wrong}” is not a ${times ? "date, such as 2024-05-01" : "number"}, and is left out.`;
    input.setAttribute("aria-invalid", String(wrong !== undefined));
  };
  input.addEventListener("input", () => { check(); onchange(); });
  const read = () => {
    const kept = parts().filter(good).map((one) => (times ? new Date(one).toISOString() : Number(one)));
    return kept.length ? kept : undefined;
  };
  const shown = (one) => (times ? `${new Date(one).toISOString().slice(0, 16)}Z`.replace("T00:00Z", "") : one);
  return { element: el("div", {}, input, fault), read, write: (value) => { input.value = (value ?? []).map(shown).join(", "); check(); } };
}

/** Return the content of a file in base64. */
export async function base64(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}
