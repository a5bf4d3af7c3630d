// The start of the page: which sections there are, and which one is shown.

import { decoded, readAddress } from "./address.js";
import { call } from "./api.js";
import { openData } from "./data.js";
import { byId, showError } from "./dom.js";
import { openItems } from "./items.js";
import { openLive } from "./live.js";
import { openPeople } from "./people.js";
import { openTraining } from "./training.js";

/** The functions are called when their section is shown, with a signal that ends what goes on in it, and the address. */
const OPEN = { people: openPeople, items: openItems, data: openData, training: openTraining, live: openLive };
const SECTIONS = { new: "people" }; // names in the address that are not sections themselves
let about, shown;

async function start() {
  try {
    about = await call("/v1/page");
  } catch (error) {
    showError(byId("content"), error, () => location.reload());
    return;
  }
  byId("model").textContent = about.name;
  for (const link of byId("sections").children) link.hidden = !about.sections.includes(link.hash.slice(1));
  byId("sections").hidden = about.sections.length < 2;
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address stays
    byId("content").focus();
  });
  addEventListener("hashchange", show);
  show();
}

function show() {
  const { name, parts } = readAddress();
  const wanted = SECTIONS[decoded(name)] ?? decoded(name);
  const section = about.sections.includes(wanted) ? wanted : about.sections[0];
  shown?.abort();
  shown = new AbortController();
  for (const link of byId("sections").children) {
    const here = link.hash === `#${section}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    byId(link.hash.slice(1)).hidden = !here;
    if (here) document.title = `${link.textContent} · ${about.name} · anyrec`;
  }
  OPEN[section](shown.signal, { name: wanted === section ? decoded(name) : section, parts }, about);
}

start();
