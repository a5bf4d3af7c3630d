"""Measures pages in a headless browser, if one is installed."""

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MEASURE = """
const page = document.documentElement, found = {width: innerWidth, page: page.scrollWidth, outside: [], texts: []};
found.dark = matchMedia("(prefers-color-scheme: dark)").matches;
const inside = (one) => one.closest(".scroll") && !one.matches(".scroll");
for (const one of document.body.querySelectorAll("*")) {
  const box = one.getBoundingClientRect();
  if (!inside(one) && !one.closest("svg") && (box.right > innerWidth + 1 || box.left < -1))
    found.outside.push(one.tagName + " " + one.textContent.slice(0, 60));
}
found.tables = [...document.querySelectorAll("table")].map((table) => {
  const scroll = table.parentElement, first = [...table.querySelectorAll("tr > :first-child")];
  scroll.scrollLeft = 1e6;
  const left = scroll.getBoundingClientRect().left, last = table.querySelector("tr > :last-child");
  return {
    caption: scroll.previousElementSibling?.textContent, scrolled: scroll.scrollLeft, box: scroll.clientWidth,
    hidden: last.getBoundingClientRect().right - scroll.getBoundingClientRect().right,
    moved: Math.max(...first.map((cell) => Math.abs(cell.getBoundingClientRect().left - left))),
    cut: first.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).length,
    column: Math.max(...first.map((cell) => cell.getBoundingClientRect().width)),
    solid: first.every((cell) => !/^rgba\\(.*, 0\\)$/.test(getComputedStyle(cell).backgroundColor)),
  };
});
for (const svg of document.querySelectorAll("figure > svg")) {
  const frame = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    if (box.left < frame.left - 3 || box.right > frame.right + 3) found.texts.push(text.textContent);
    const colour = getComputedStyle(text).fill, shown = getComputedStyle(document.body).color;
    if (colour !== shown && colour === "rgb(0, 0, 0)") found.texts.push("black: " + text.textContent);
  }
}
parent.postMessage(JSON.stringify(found), "*");
"""
FRAME = """<body><iframe src="{source}" style="width: {width}px; height: 2000px; border: 0"></iframe>
<script>onmessage = (event) => document.body.textContent = "MEASURED" + event.data + "MEASURED";</script></body>"""
"""A page with a frame of the width: a window of Chromium is at least 500 pixels wide."""


def measured(page, folder, width, dark=False):
    """Return how a page fits into a window of a width in pixels.

    Args:
        page: The page, a file of HTML.
        folder: A folder for a copy of the page.
        width: Width of the window.
        dark: Whether the browser prefers dark pages.

    Returns:
        `width` of the window and of the `page`; `dark`; `outside`, elements that are cut off; `tables`, how each one
        looks if it is scrolled to its end; `texts` of figures that are cut off, or black on a dark page.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed, which measures the page")
    copy, frame = folder / "measured.html", folder / "frame.html"
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"<script>{MEASURE}</script></body>"), encoding="utf-8")
    frame.write_text(FRAME.format(source=copy.name, width=width))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,2000", "--dump-dom"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={int(not dark)}"]
    done = subprocess.run([program, *options, frame.as_uri()], capture_output=True, text=True, timeout=300, check=False)
    found = re.search("MEASURED({.*})MEASURED", done.stdout, re.S)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))
