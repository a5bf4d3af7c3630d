// The form for a new person, made from the features of the model.

import { el, label, short } from "./dom.js";

const MOST_OPTIONS = 60;
const MOST_CHECKS = 12;
let numbered = 0;

/** Return a form of features: its `element`, `read()` for the record and pictures, and `fill(record)`. */
export function makeForm(features, onchange) {
  const fields = features.filter((one) => one.kind !== "items" && one.kind !== "other").map((one) => ({ feature: one, ...field(one, onchange) }));
  return {
    element: el("div", { class: "fields" }, fields.map((one) => one.element)),
    read() {
      const user = {}, images = {};
      for (const { feature, read } of fields) {
        const value = read();
        const [group, ...name] = feature.name.split(".");
        if (value === undefined) continue;
        if (feature.kind === "picture") images[name.join(".")] = value;
        else (user[group] ??= {})[name.join(".")] = value;
      }
      return { user, images };
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
  if (feature.many && feature.values.length <= MOST_CHECKS) return checks(feature, id, onchange);
  if (feature.many || feature.known > MOST_OPTIONS) return typed(feature, id, onchange);
  const input = el("select", { id, onchange }, el("option", { value: "" }, "not known"), feature.values.map((one) => el("option", {}, one)));
  return { element: input, read: () => input.value || undefined, write: (value) => { input.value = value ?? ""; } };
}

function checks(feature, id, onchange) {
  const boxes = feature.values.map((one) => el("input", { type: "checkbox", value: one, onchange }));
  const element = el("div", { class: "checks" }, boxes.map((box) => el("label", {}, box, box.value)));
  const read = () => { const found = boxes.filter((box) => box.checked).map((box) => box.value); return found.length ? found : undefined; };
  return { group: true, element, read, write: (value) => { for (const box of boxes) box.checked = (value || []).includes(box.value); } };
}

/** A text with suggestions, for categories with many values; several are separated by commas. */
function typed(feature, id, onchange) {
  const options = el("datalist", { id: `${id}-values` }, feature.values.map((one) => el("option", { value: one })));
  const input = el("input", { id, list: options.id, oninput: onchange, autocomplete: "off", placeholder: feature.many ? "Several, between commas" : "not known" });
  const parts = () => input.value.split(",").map((one) => one.trim()).filter(Boolean);
  const read = () => (feature.many ? (parts().length ? parts() : undefined) : input.value.trim() || undefined);
  return { element: el("div", {}, input, options), read, write: (value) => { input.value = [value ?? []].flat().join(", "); } };
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
  slider.addEventListener("input", () => { input.value = whole ? slider.value : Number(Number(slider.value).toPrecision(4)); onchange(); });
  input.addEventListener("input", () => { if (input.value !== "") slider.value = input.value; onchange(); });
  given.element.append(slider, el("span", { class: "small" }, `${short(min)} to ${short(max)}`));
  return { ...given, write: (value) => { input.value = value ?? ""; slider.value = value ?? median; } };
}

function text(feature, id, onchange) {
  const input = el("textarea", { id, rows: 3, placeholder: feature.examples[0] ? `For example: ${feature.examples[0]}` : "", oninput: onchange });
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
  const input = el("input", { id, placeholder: `For example: ${hint}`, oninput: onchange, autocomplete: "off" });
  const parts = () => input.value.split(",").map((one) => one.trim()).filter(Boolean);
  const good = (one) => (times ? !Number.isNaN(Date.parse(one)) : Number.isFinite(Number(one)));
  const read = () => {
    const wrong = parts().find((one) => !good(one));
    input.setCustomValidity(wrong === undefined ? "" : `${wrong} is no ${times ? "time" : "number"}.`);
    input.setAttribute("aria-invalid", String(wrong !== undefined));
    const kept = parts().filter(good).map((one) => (times ? new Date(one).toISOString() : Number(one)));
    return kept.length ? kept : undefined;
  };
  return { element: input, read, write: (value) => { input.value = (value || []).map((one) => (times ? String(one).slice(0, 10) : one)).join(", "); } };
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
