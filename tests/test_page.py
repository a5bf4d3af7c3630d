"""The page in a real browser: every section renders, is usable by all, and follows what happens."""

import json
import time

import pyarrow as pa
import pytest
from shops import photo_shop
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from pages import a_browser, accessibility_faults, opened, served, wait

from anyrec.cli.run import RunInputs, train_run
from anyrec.cli.terminal import ResultsOnly
from anyrec.core.config import Config, ServingConfig
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.keys import new_key, read_keys
from anyrec.serving.http.watch import watched
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


def titles(page):
    return page.locator("#list .card-title").all_inner_texts()


def changes(page, before, seconds=10):
    return wait(lambda: titles(page) not in (before, []), seconds)


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


def test_an_event_changes_the_next_list_and_the_counter_within_a_second(browser, address):
    with opened(browser, f"{address}/#live") as live, opened(browser, f"{address}/#people") as page:
        counter = live.locator(".tile-box[data-name=Events] b")
        counter.wait_for()
        page.wait_for_selector("#list .card")
        before, events = titles(page), int(counter.inner_text())
        page.locator("#list .card .row button.quiet").first.click()
        clicked = time.monotonic()
        assert changes(page, before, 5) and before[0] not in titles(page)
        assert wait(lambda: int(counter.inner_text()) == events + 1, max(0.5, clicked + 1.5 - time.monotonic()))
        assert before[0] in live.inner_text("#live-events li:first-child")
        assert page.faults == live.faults == []


def test_items_are_searched_by_words_and_opened_from_the_list(browser, address):
    with opened(browser, f"{address}/#items") as page:
        page.wait_for_selector("#found .card")
        page.fill("#item-words", "pilot")
        page.click("#item-search button[type=submit]")
        assert wait(lambda: "pilot" in page.inner_text("#found-title"), 20)
        first = page.locator("#found .card-title").first.inner_text()
        assert "pilot" in first
        page.locator("#found .card-open").first.click()
        assert wait(lambda: page.inner_text("#item h2") == first, 10)
        assert page.evaluate("location.hash").startswith("#items/")


def test_ids_of_19_digits_keep_all_of_them(browser):
    data = small_dataset(users=12, items=10, each=4)
    large = {one: pa.array([2**62 + 1 + int(key[1:]) for key in data.ids(one).to_pylist()]) for one in ("user", "item")}
    pairs = data.interactions
    for one, rows in (("user", data.user_rows), ("item", data.item_rows)):
        place = pairs.column_names.index(f"{one}_id")
        pairs = pairs.set_column(place, f"{one}_id", large[one].take(pa.array(rows)))
    tables = [data.table(one).set_column(0, f"{one}_id", large[one]) for one in ("user", "item")]
    fitted = Recommender.from_config(small_config()).fit(Dataset(*tables, pairs), progress=False)
    service = Service(fitted, ServingConfig())
    with served(make_app(service)) as address, opened(browser, address) as page:
        page.wait_for_selector("#list .card")
        assert page.inner_text("#who h2") == f"Person {2**62 + 1}"
        before = titles(page)
        page.locator("#list .card .row button.quiet").first.click()
        assert changes(page, before)
        (event,) = service.histories.of(2**62 + 1)
        assert service.served.knows("item", [event["item_id"]])[0]
        page.locator("#list .card-open").first.click()
        page.wait_for_selector("#item .thumbs li")
        assert page.faults == []
        read = "import('/page/json.js').then(({ read, write }) => write(read(%r)))"
        text = (
            '{"a":[-9223372036854775808,1,2.5,1e300,"9223372036854775807 \\" 12345678901234567"],"b":12345678901234567}'
        )
        assert page.evaluate(read % text) == text.replace("1e300", "1e+300")


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


def test_the_curves_grow_while_a_run_trains(browser, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    epochs = [{"epoch": n, "loss": 3 / n, "seconds": 0.1, "validation": {"ndcg@10": n / 10}} for n in (1, 2, 3)]

    def write(count):
        (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in epochs[:count]))

    with watched(run, 0) as address, opened(browser, address) as page:
        page.wait_for_selector("#runs table")
        assert page.locator("nav a:visible").count() == 0
        for count in (1, 2, 3):
            write(count)
            assert wait(lambda: f"{count} epoch" in page.inner_text("#training-lead"), 20)  # noqa: B023
        label = page.get_attribute("#curves .chart >> nth=1", "aria-label")
        assert "run 0.3" in label and page.faults == []
