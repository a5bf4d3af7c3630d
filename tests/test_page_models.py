"""The page in a real browser, of other models than a shop's: large ids, many features, none, and a run that trains."""

import json

import pyarrow as pa
import pytest
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from pages import a_browser, accessibility_faults, changes, opened, served, titles, wait

from anyrec.core.config import ServingConfig
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.watch import watched
from anyrec.serving.live.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with a_browser() as found:
        yield found


def test_many_features_long_texts_and_rare_values_fit_a_phone(browser):
    """A category has more values than a form lists, texts are long, from right to left, or have signs of addresses."""
    data, long = small_dataset(users=60, items=12, each=4), "unbroken" * 30
    towns = pa.array([[f"town {row * 20 + n}" for n in range(20)] for row in range(60)])
    users = data.users.append_column("categorical.town", pa.array([one[0] for one in towns.to_pylist()]))
    users = users.append_column("categorical.visited", towns).append_column(
        "text.name", pa.array([f"שלום {long}"] * 60)
    )
    for n in range(12):
        users = users.append_column(f"continuous.number_{n}", pa.array([float(row * n) for row in range(60)]))
    ids = pa.array([f"a/b, {one}?#%2F" for one in data.items["item_id"].to_pylist()])
    items = data.items.set_column(0, "item_id", ids).set_column(
        data.items.column_names.index("categorical.tags"), "categorical.tags", pa.array([[long, "short"]] * 12)
    )
    pairs = data.interactions
    pairs = pairs.set_column(pairs.column_names.index("item_id"), "item_id", ids.take(pa.array(data.item_rows)))
    fitted = Recommender.from_config(small_config()).fit(Dataset(users, items, pairs), progress=False)
    with served(make_app(Service(fitted, ServingConfig()))) as address, opened(browser, address, width=390) as page:
        page.wait_for_selector("#list .card")
        assert "שלום" in page.inner_text("#who h2")
        before = titles(page)
        page.locator("#list .card .row button").first.click()
        assert changes(page, before) and page.locator("#session .chip").count() == 1
        page.click("#new-tab")
        wait(lambda: page.get_attribute("#list", "aria-busy") == "false", 10)
        page.click("#new-person summary")
        town = page.get_by_label("visited")
        town.fill("town 1199")
        page.wait_for_selector("[role=option]")
        page.keyboard.press("Enter")
        assert wait(lambda: "town%201199" in page.url, 10)
        town.fill("elsewhere")
        page.keyboard.press("Enter")
        assert wait(lambda: page.get_by_text("do not have this value").count() == 1, 10)
        assert page.locator("#new-person .chip").count() == 2 and page.locator("#strip .picture").count() == 5
        page.keyboard.press("Backspace")
        assert page.locator("#new-person .chip").count() == 1
        assert accessibility_faults(page) == []
        for section in ("people", "new", "items", "data", "live"):
            page.goto(f"{address}/#{section}")
            page.wait_for_load_state("networkidle" if section != "live" else "load")
            page.wait_for_selector(
                {"items": "#map-legend button", "data": "#data .feature"}.get(section, "main > section:visible h1")
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, section
        page.goto(f"{address}/#items")
        page.locator("#found .card-open").first.click()
        page.wait_for_selector("#item .thumbs li")
        assert page.faults == []


def test_a_model_of_ids_without_vectors_says_what_it_does_not_have(browser):
    data = small_dataset(users=12, items=10, each=4)
    bare = Dataset(data.users.select(["user_id"]), data.items.select(["item_id"]), data.interactions)
    fitted = Recommender.from_config(small_config(model={"type": "popularity"})).fit(bare, progress=False)
    with served(make_app(Service(fitted, ServingConfig()))) as address, opened(browser, address) as page:
        page.wait_for_selector("#list .card")
        page.click("#new-tab")
        assert "no features of people" in page.inner_text("#fields")
        assert not page.locator("#example-person").is_visible()
        page.route("**/v1/recommend", lambda route: route.abort())
        page.select_option("#list-length", "6")
        page.wait_for_selector("#list-notes .notice")
        assert "does not answer" in page.inner_text("#list-notes")
        page.unroute("**/v1/recommend")
        starting = {"status": 503, "body": '{"ready": false, "reasons": ["the server is starting"]}'}
        page.route("**/v1/recommend", lambda route: route.fulfill(**starting), times=1)
        page.click("#list-notes button")
        page.wait_for_selector("#list .card")
        assert page.locator("#list .card").count() == 6 and page.inner_text("#list-notes") == ""
        page.click("nav a[href='#items']")
        page.wait_for_selector("#item h2")
        assert not page.locator("#map-panel").is_visible() and "similar" in page.inner_text("#item").lower()
        assert accessibility_faults(page) == []


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
