// Requests to the server. The API key, if one is needed, stays in this tab (sessionStorage).

import { read, write } from "./json.js";

const KEY = "anyrec-key";
const GONE = "The server does not answer. Look whether “anyrec serve” still runs, then try again.";
let asking = null;

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Return the answer of a route as JSON. Ask for a key if the server wants one. */
export async function call(path, { method = "GET", body, signal } = {}) {
  const answer = await request(path, {
    method,
    signal,
    body: body === undefined ? undefined : write(body),
    headers: body === undefined ? {} : { "content-type": "application/json" },
  });
  return read(await answer.text());
}

export const post = (path, body, signal) => call(path, { method: "POST", body, signal });

export const text = async (path, signal) => (await request(path, { signal })).text();

/** Let an image show a picture of the server. With a key it is fetched, since an image sends no headers. */
export async function showPicture(image, path) {
  if (!sessionStorage.getItem(KEY)) {
    image.src = path;
    return;
  }
  try {
    const data = await (await request(path, {})).blob();
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    image.src = URL.createObjectURL(data);
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

/** Call `receive(name, value)` for each server-sent event until the signal; after `lost()`, connect again. */
export async function follow(path, receive, signal, lost = () => {}) {
  while (!signal.aborted) {
    try {
      const answer = await request(path, { signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const fields = Object.fromEntries(block.split("\n").map((line) => split(line)));
          if (fields.event && receive(fields.event, read(fields.data)) === false) return;
        }
      }
    } catch (error) {
      if (signal.aborted || error.status) return;
    }
    lost();
    await new Promise((resolve) => setTimeout(resolve, 1500));
  }
}

function split(line) {
  const place = line.indexOf(":");
  return [line.slice(0, place), line.slice(place + 1).trim()];
}

async function request(path, options) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch(path, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new Problem(0, GONE);
    });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    if (problem.ready === false) { // it starts again; it says so at once
      await new Promise((resolve) => setTimeout(resolve, 1000));
      options.signal?.throwIfAborted();
      continue;
    }
    if (answer.status !== 401) throw new Problem(answer.status, said(answer.status, problem.detail));
    if (key === sessionStorage.getItem(KEY)) await askForKey(Boolean(key));
  }
}

/** Return the words of the server without the place in the request (`/images/photo: `), which nobody typed. */
function said(status, detail) {
  const text = (detail || `The server answers with status ${status}.`).replace(/^\/[\w/.-]*: /, "");
  return text[0].toUpperCase() + text.slice(1);
}

/** Show the dialog for the key once, however many requests wait for it. */
function askForKey(wrong) {
  sessionStorage.removeItem(KEY);
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    if (wrong) document.getElementById("key-text").textContent = "The server does not know this key. Give another one.";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.getElementById("key-form").addEventListener("submit", () => {
      const field = document.getElementById("key");
      sessionStorage.setItem(KEY, field.value.trim());
      field.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
