// The part of the address after `#`: the section, and what it shows, so that a link shows the same and "back" works.
//
//   #people/USER/ITEM,ITEM   a known person, with a session of items
//   #new/RECORD/ITEM,ITEM    a person who was composed; the record is JSON
//   #items/ITEM/WORDS        an item, and a search
//   #training/RUN,RUN        runs that are compared

/** Return the name and the parts of the address; a part that is a list stays encoded (`readList`). */
export function readAddress() {
  const [name, ...parts] = location.hash.slice(1).split("/");
  return { name, parts };
}

export function decoded(part = "") {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // not made by this page
  }
}

export const readList = (part) => (part ? part.split(",").map(decoded) : []);

/** Return an address. parts: texts, and lists of texts. Empty parts at the end are left out. */
export function address(name, ...parts) {
  const texts = parts.map((part) => (Array.isArray(part) ? part.map(encodeURIComponent).join(",") : encodeURIComponent(part ?? "")));
  while (texts.length && !texts.at(-1)) texts.pop();
  return `#${[name, ...texts].join("/")}`;
}

/** Show another place; "back" returns from it. */
export function goTo(hash) {
  if (location.hash === hash) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}

/** Let the address say what is shown already. */
export function note(hash) {
  if (location.hash !== hash) history.replaceState(null, "", hash);
}
