// The report of a run within the page.

import { text } from "./api.js";
import { el, fill, showError } from "./dom.js";

const OWN = ".body { padding: 0; max-width: none; margin: 0 } .scroll { background: none } th:first-child { background: var(--surface) }";

/**
 * Show the report of a run. It is a page with its own styles: they are put into a shadow root, where they touch nothing
 * else, and set by scripts, since the page's security policy forbids styles in HTML.
 */
export async function showReport(place, name, signal) {
  let source;
  try {
    source = await text(`/v1/runs/${encodeURIComponent(name)}/report`, signal);
  } catch (error) {
    return showError(place, error, () => showReport(place, name, signal));
  }
  const styles = [...source.matchAll(/<style[^>]*>([\s\S]*?)<\/style>/g)].map(([, css]) => css.replaceAll(":root", ":host").replace(/(^|\})\s*body\s*\{/g, "$1 .body {"));
  const plain = source.replace(/<style[^>]*>[\s\S]*?<\/style>/g, "").replace(/<script[\s\S]*?<\/script>/gi, "").replace(/\sstyle="/g, ' data-style="');
  const body = new DOMParser().parseFromString(plain, "text/html").body;
  const host = el("div", { class: "report" });
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [...styles, OWN].map((css) => { const sheet = new CSSStyleSheet(); sheet.replaceSync(css); return sheet; });
  const inside = el("div", { class: "body" }, ...body.childNodes);
  for (const one of inside.querySelectorAll("[data-style]")) one.style.cssText = one.dataset.style;
  for (const one of inside.querySelectorAll("h1")) one.replaceWith(el("h2", {}, ...one.childNodes));
  root.append(inside);
  return fill(place, el("details", { class: "panel", open: true }, el("summary", {}, `Report of ${name}`), host));
}
