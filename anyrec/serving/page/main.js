// The start of the page: which sections there are, which one is shown, and the key.

import { call } from "./api.js";
import { byId, showError } from "./dom.js";
import { openData } from "./data.js";
import { openItems } from "./items.js";
import { openLive } from "./live.js";
import { openPeople } from "./people.js";
import { openTraining } from "./training.js";

/** Each section's function is called when it is shown, with a signal that ends what goes on in it, and its argument. */
const OPEN = { people: openPeople, items: openItems, data: openData, training: openTraining, live: openLive };
let about, shown;

async function start() {
  try {
    about = await call("/v1/page");
  } catch (error) {
    showError(byId("content"), error);
    return;
  }
  byId("model").textContent = about.name;
  document.title = `${about.name} · anyrec`;
  for (const link of byId("sections").children) link.hidden = !about.sections.includes(link.hash.slice(1));
  byId("sections").hidden = about.sections.length < 2;
  addEventListener("hashchange", show);
  show();
}

/** Show the section that the address names: `#items/42` is the section Items with the item 42. */
function show() {
  const [wanted, ...rest] = location.hash.slice(1).split("/");
  if (wanted === "content") return;
  const name = about.sections.includes(wanted) ? wanted : about.sections[0];
  shown?.abort();
  shown = new AbortController();
  for (const link of byId("sections").children) {
    const here = link.hash === `#${name}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    byId(link.hash.slice(1)).hidden = !here;
  }
  OPEN[name](shown.signal, rest.length ? decodeURIComponent(rest.join("/")) : undefined, about);
}

start();
