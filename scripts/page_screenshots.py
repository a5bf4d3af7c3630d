"""Takes the pictures of the page in README.md and docs/serving.md. It needs Playwright and a Chromium.

anyrec serve --demo --port 8000
python scripts/page_screenshots.py http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from anyrec.data.images import open_image

PERSON = {
    "categorical": {"location": "Bergen", "occupation": "musician"},
    "continuous": {"age": 31},
    "text": {"bio": "I hike in the forest and sleep in tents."},
}
SIZE = {"width": 1240, "height": 820}
LOADING = 4000
"""Milliseconds in which all pictures of items are there."""
COLOURS = 256
"""Size of the palette of the PNG files, which keeps each of them below 300 kB."""


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="Where `anyrec serve --demo` answers.")
    parser.add_argument("--output", type=Path, default=Path("docs/assets"))
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        people(page, arguments.address, arguments.output / "page-people.png")
        items(page, arguments.address, arguments.output / "page-items.png")
        browser.close()


def people(page: Page, address: str, output: Path) -> None:
    """Show a new person with a session of one item."""
    page.goto(f"{address}/#new/{quote(json.dumps(PERSON), safe='')}")
    page.wait_for_selector("#list .card")
    page.locator("#list .card .row button").nth(1).click()
    page.wait_for_selector("#session .chip")
    page.wait_for_selector("#list .move")
    save(page, output)


def items(page: Page, address: str, output: Path) -> None:
    """Show the map and an item."""
    page.goto(f"{address}/#items/item92")
    page.wait_for_selector("#item .thumbs img")
    save(page, output)


def save(page: Page, output: Path) -> None:
    """Save the visible part as a small PNG file."""
    page.mouse.move(5, 5)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(LOADING)
    page.screenshot(path=output)
    picture = open_image(output.name, output.parent, side=SIZE["width"])
    picture.convert("RGB").quantize(COLOURS).save(output, optimize=True)


if __name__ == "__main__":
    main()
