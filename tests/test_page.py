"""The page in a real browser: every section renders, is usable by all, and follows what happens."""

import pytest
from shops import photo_shop
from small import small_config

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from pages import a_browser, accessibility_faults, changes, opened, served, titles, wait

from anyrec.cli.run import RunInputs, train_run
from anyrec.cli.terminal import ResultsOnly
from anyrec.core.config import Config, ServingConfig
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.keys import new_key, read_keys
from anyrec.serving.live.service import Service

pytestmark = pytest.mark.slow
READY = {
    "people": "#list .card",
    "items": "#found .card",
    "data": "#data-inside .feature",
    "training": "#curves canvas",
    "live": "#live-experiments .panel",
}
"""The last part of each section that appears."""


@pytest.fixture(scope="module")
def browser():
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def recommender(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    photo_shop(folder)
    config = small_config(name="shop", output_dir=str(folder / "models"), features={"history": {"block": "mean"}})
    train_run(RunInputs(Config.model_validate(config), folder / "data.json"), ResultsOnly())
    return Recommender.load(folder / "models" / "shop", image_root=folder)


@pytest.fixture(scope="module")
def address(recommender, tmp_path_factory):
    variants = {"a": {}, "b": {}, "c": {"shadow": True}}
    config = ServingConfig.model_validate({"experiments": [{"name": "lists", "variants": variants}]})
    with served(make_app(Service(recommender, config, tmp_path_factory.mktemp("events")))) as found:
        yield found


def test_lists_of_shadow_variants_are_compared_in_the_section_live(browser, address):
    with opened(browser, f"{address}/#people") as page:
        page.wait_for_selector("#list .card")
        page.evaluate("fetch('/v1/recommend', {method: 'POST', headers: {'content-type': 'application/json'}, "
                      "body: JSON.stringify({user_id: 'u001'})})")  # fmt: skip
        page.click("nav a[href='#live']")
        page.wait_for_selector("[data-shadow=c]", timeout=20_000)
        assert "100\u00a0% of the shown items in common" in page.inner_text("[data-shadow=c]")
        assert page.faults == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_section_renders_without_error_and_fits(browser, address, width, dark):
    with opened(browser, address, width, dark) as page:
        for section, last in READY.items():
            page.click(f"nav a[href='#{section}']")
            page.wait_for_selector(f"#{section} h1")
            page.wait_for_selector(last)
            page.wait_for_load_state("networkidle" if section not in ("training", "live") else "load")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, section
            assert page.locator("main > section:visible").count() == 1
            assert accessibility_faults(page) == [], section
        assert page.faults == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_the_api_fits_and_leads_to_each_route(browser, address, width):
    with opened(browser, f"{address}/docs", width, dark=width == 390) as page:
        page.click("nav a:has-text('POST /v1/events')")
        assert page.evaluate("document.querySelector(':target h2').textContent") == "POST /v1/events"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert accessibility_faults(page) == [] and page.faults == []


def test_the_page_is_used_by_keyboard(browser, address):
    with opened(browser, address) as page:
        page.wait_for_selector("#list .card")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#item .thumbs li")
        page.focus("#map canvas")
        page.keyboard.press("ArrowRight")
        chosen = page.inner_text("#map .tip")
        page.keyboard.press("Enter")
        assert wait(lambda: page.inner_text("#item h2") == chosen, 20)
        assert page.faults == []


def test_a_new_person_changes_the_list(browser, address, tmp_path):
    with opened(browser, address) as page:
        page.wait_for_selector("#list .card")
        page.click("#new-tab")
        page.wait_for_selector("#who [data-note=nobody]")  # nothing is known yet
        nobody = titles(page)
        page.select_option("#new-person select", "pilot")
        assert changes(page, nobody)
        pilot = titles(page)
        assert "Thing" in pilot[0] and page.locator("#who [data-note=nobody]").count() == 0
        page.fill("#new-person textarea", "I work as a baker")
        assert changes(page, pilot)
        talking = titles(page)
        page.set_input_files("#new-person input[type=file]", files=[face_file(tmp_path)])
        assert changes(page, talking)
        assert page.locator("#new-person .preview").is_visible() and page.faults == []
        page.click("#new-person button[type=reset]")
        assert wait(lambda: titles(page) == nobody, 10)


def face_file(folder):
    from PIL import Image

    Image.new("RGB", (90, 90), "#393").save(folder / "face.png")
    return folder / "face.png"


def test_a_link_shows_the_same_person_and_session_and_back_returns(browser, address):
    with opened(browser, f"{address}/#people/u007") as page:
        page.wait_for_selector("#list .card")
        assert page.inner_text("#who h2") == "u007"
        before = titles(page)
        page.locator("#list .card .row button").nth(2).click()
        assert changes(page, before)
        link, session = page.url, titles(page)
        page.locator("#user-list button").first.click()
        assert wait(lambda: page.inner_text("#who h2") == "u000", 10) and page.locator("#session .chip").count() == 0
        page.go_back()
        assert wait(lambda: titles(page) == session, 10) and page.locator("#session .chip").count() == 1
        page.click("#new-tab")
        page.select_option("#new-person select", "pilot")
        assert wait(lambda: "pilot" in page.url, 10)
        wait(lambda: page.get_attribute("#list", "aria-busy") == "false", 10)
        pilot, of_pilot = page.url, titles(page)
        with opened(browser, link) as other:
            assert wait(lambda: titles(other) == session, 10)
        with opened(browser, pilot) as other:
            assert wait(lambda: titles(other) == of_pilot, 10) and other.input_value("#new-person select") == "pilot"
        page.goto(f"{address}/#people/nobody")
        assert wait(lambda: "Choose another person" in page.inner_text("#who"), 10)


def test_the_focus_stays_where_it_is_when_the_list_changes(browser, address):
    with opened(browser, f"{address}/#people/u009") as page:
        page.wait_for_selector("#list .card")
        focus = "document.activeElement.dataset.focus"
        for _ in range(2):
            before = titles(page)
            page.focus("#list .card:nth-child(3) .row button")
            page.keyboard.press("Enter")
            assert changes(page, before) and page.evaluate(focus) == "add 3"
        for left in (1, 0):
            page.focus("#session .chip")
            page.keyboard.press("Enter")
            assert wait(lambda: page.locator("#session .chip").count() == left, 10)  # noqa: B023
            assert (
                page.evaluate(focus) == "chip 0" if left else page.evaluate("document.activeElement.id") == "list-title"
            )
        page.click("#new-tab")
        wait(lambda: page.get_attribute("#list", "aria-busy") == "false", 10)
        page.evaluate(
            "() => { window.shift = 0; new PerformanceObserver((list) => { "
            "for (const one of list.getEntries()) shift += one.value; }).observe({ type: 'layout-shift' }); }"
        )
        page.focus("#new-person select")
        for _ in range(3):
            before = titles(page)
            page.keyboard.press("ArrowDown")
            assert changes(page, before) and page.evaluate("document.activeElement.matches('#new-person select')")
        assert page.evaluate("shift") < 0.02 and page.faults == []


def test_a_session_of_items_changes_the_list(browser, address):
    with opened(browser, address) as page:
        page.wait_for_selector("#list .card")
        before = titles(page)
        page.locator("#list .card .row button").first.click()
        assert changes(page, before) and before[0] not in titles(page)
        assert page.locator("#session .chip").count() == 1 and page.locator("#list .move").count() > 0
        page.click("#session .chip")
        assert wait(lambda: titles(page) == before, 10) and page.faults == []


def test_an_item_says_why_it_is_there_and_what_each_stage_did(browser, address):
    with opened(browser, address) as page:
        page.wait_for_selector("#list .card .why li")
        page.locator("#list .card .link").first.click()
        inside = page.locator("#why-inside")
        inside.locator(".bars li").nth(1).wait_for()
        assert "retrieve" in inside.locator(".steps").inner_text()
        assert accessibility_faults(page) == []
        page.keyboard.press("Escape")
        assert "Why this one" in page.evaluate("document.activeElement.textContent")
        page.click("#stages summary")
        assert "represent" in page.inner_text("#stages .pipeline")
        assert accessibility_faults(page) == [] and page.faults == []


def test_an_event_changes_the_next_list_and_by_itself_the_counter_of_another_tab(browser, address):
    with opened(browser, f"{address}/#live") as live, opened(browser, f"{address}/#people") as page:
        counter = live.locator(".tile-box[data-name=Events] b")
        counter.wait_for()
        page.wait_for_selector("#list .card")
        before, events = titles(page), int(counter.inner_text())
        page.locator("#list .card .row button.quiet").first.click()
        assert changes(page, before, 20) and before[0] not in titles(page)
        assert wait(lambda: int(counter.inner_text()) == events + 1, 20)
        assert before[0] in live.inner_text("#live-events li:first-child")
        assert page.faults == live.faults == []


def test_items_are_searched_by_words_and_opened_from_the_list(browser, address):
    with opened(browser, f"{address}/#items") as page:
        page.wait_for_selector("#found .card")
        page.fill("#item-words", "pilot snorkel")  # no item contains both
        page.click("#item-search button[type=submit]")
        assert wait(lambda: "No item contains all" in page.inner_text("#found-note"), 20)
        assert "pilot" in page.locator("#found .card-title").first.inner_text() and "pilot%20snorkel" in page.url
        page.locator("#suggested .chip").first.click()
        assert wait(lambda: page.inner_text("#found-note")[:1].isdigit(), 20)
        page.fill("#item-words", "pilot")
        page.click("#item-search button[type=submit]")
        assert wait(lambda: "“pilot”" in page.inner_text("#found-title") and page.inner_text("#found-note"), 20)
        above = "['found-panel', 'map-panel'].map((id) => document.getElementById(id).offsetTop)"
        found, shown_map = page.evaluate(above)
        assert found < shown_map
        first = page.locator("#found .card-title").first.inner_text()
        assert "pilot" in first
        page.locator("#found .card-open").first.click()
        assert wait(lambda: page.inner_text("#item h2") == first, 10)
        assert page.evaluate("location.hash").startswith("#items/")


def test_the_map_is_read_without_colours_and_moved_by_keys(browser, address):
    with opened(browser, f"{address}/#items", width=390) as page:
        page.wait_for_selector("#map-legend button")
        markers = page.evaluate(
            "import('/page/markers.js').then(({ markerOf }) => [false, true].map((dark) => "
            "Array.from({ length: 12 }, (_, n) => Object.values(markerOf(n - 1, dark)))))"
        )
        for found, ground in zip(markers, ("#fbfcfa", "#20252a"), strict=True):
            assert len({tuple(one) for one in found}) == 12 and len({shape for _, shape in found[:7]}) == 6
            assert min(contrast(colour, ground) for colour, _ in found) >= 3
        page.click("#map-legend button >> nth=0")
        assert page.get_attribute("#map-legend button >> nth=0", "aria-pressed") == "true"
        page.focus("#map canvas")
        page.keyboard.press("+")
        assert "zoomed" in page.get_attribute("#map canvas", "class")
        for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "-", "-"):
            page.keyboard.press(key)
        assert "zoomed" not in page.get_attribute("#map canvas", "class")
        page.locator("#found .card-open").nth(3).click()
        assert wait(lambda: page.locator("#item h2").is_visible(), 10)
        page.wait_for_function("document.getElementById('item').getBoundingClientRect().top < innerHeight / 2")
        assert page.faults == []


def contrast(one, other):
    """Return the contrast of two colours by WCAG 2."""

    def luminance(colour):
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_the_report_is_embedded_with_its_figures(browser, address):
    with opened(browser, f"{address}/#training") as page:
        page.wait_for_selector("#report .report")
        inside = page.evaluate("document.querySelector('.report').shadowRoot.textContent")
        assert "ndcg@10" in inside and page.faults == []
        assert page.evaluate("document.querySelector('.report').shadowRoot.querySelectorAll('svg').length") > 0


def test_with_keys_the_page_asks_for_one_and_keeps_it_in_the_tab(browser, recommender, tmp_path):
    key = new_key(tmp_path / "keys.json", "page", ("read", "write"))
    app = make_app(Service(recommender, ServingConfig(), None), keys=read_keys(tmp_path / "keys.json"))
    with served(app) as address, opened(browser, address) as page:
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "anyrec-wrong")
        page.click("#key-form button")
        assert wait(lambda: "does not know" in page.inner_text("#key-text"), 20)
        page.fill("#key", key)
        page.click("#key-form button")
        page.wait_for_selector("#list .card img[src^='blob:']")
        page.reload()
        page.wait_for_selector("#list .card")
        assert not page.locator("#key-dialog").is_visible()
        assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
