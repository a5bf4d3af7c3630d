"""The page in a headless browser, if Playwright and a Chromium are installed."""

import shutil
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from browser import NAMES

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
SERIOUS = ("serious", "critical")


@contextmanager
def a_browser():
    """Yield a Chromium that Playwright drives, or skip the tests."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed, which opens the page")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def served(app):
    """Serve an application at a free port of this machine, and yield its address."""
    place = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{place.getsockname()[1]}"
    app.state.host.stopping = True
    server.should_exit = True
    thread.join()


@contextmanager
def opened(browser, address, width=1280, dark=False):
    """Yield a page of a width, with `faults`: errors of the console, of scripts and of requests."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("response", lambda answer: page.faults.append(answer.url) if answer.status >= 400 else None)
    page.set_default_timeout(20_000)
    page.goto(address)
    yield page
    page.close()


def accessibility_faults(page):
    """Return the serious faults that axe-core finds: the rule and the element."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def wait(condition, seconds):
    """Return whether a condition becomes true within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def titles(page):
    """Return the titles of the items in a person's list."""
    return page.locator("#list .card-title").all_inner_texts()


def changes(page, before, seconds=10):
    """Return whether the list becomes another one."""
    return wait(lambda: titles(page) not in (before, []), seconds)
