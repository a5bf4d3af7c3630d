"""`anyrec init` on tables as they are: the meaning of each column, the questions, and the presets of data sets."""

import json

import pytest
from layouts import LAYOUTS
from small import call

from anyrec import Dataset
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError, InputError
from anyrec.data.infer.infer_sources import infer_sources, tables_at
from anyrec.data.infer.names import role_of
from anyrec.data.presets.load_preset import load_preset, preset_names

REGISTRY = discover()


def inferred(folder, files=None, names=None, **options):
    """The mapping that is inferred for the files of a folder."""
    for name, text in (files or {}).items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    tables = [{"path": str(folder / name)} for name in names] if names else tables_at([str(folder)])
    return infer_sources(tables, REGISTRY, **options)


def meanings(found, part, number=0):
    """Role or feature by column, without the changes of values."""
    columns = found.data["sources"][part][number]["columns"]
    return {name: to(one) for name, one in columns.items() if one is not None}


def to(meaning):
    if isinstance(meaning, list):
        return [to(one) for one in meaning]
    return meaning["to"] if isinstance(meaning, dict) else meaning


EXPECTED = {
    "movielens": (
        {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"},
        {"movieId": "item_id", "title": ["text.title", "continuous.year"], "genres": "categorical.genres",
         "tag": "categorical.tag"},
    ),
    "amazon-2014": (
        {"reviewerID": "user_id", "asin": "item_id", "overall": "rating", "unixReviewTime": "timestamp"},
        {"asin": "item_id", "title": "text.title", "price": "continuous.price", "brand": "categorical.brand",
         "categories": "categorical.categories"},
    ),
    "amazon-2018": (
        {"reviewerID": "user_id", "asin": "item_id", "overall": "rating", "unixReviewTime": "timestamp"},
        {"asin": "item_id", "title": "text.title", "description": "text.description", "brand": "categorical.brand",
         "price": "continuous.price"},
    ),
    "amazon-2023": (
        {"user_id": "user_id", "parent_asin": "item_id", "rating": "rating", "timestamp": "timestamp"},
        {"parent_asin": "item_id", "title": "text.title", "description": "text.description",
         "main_category": "categorical.main_category", "price": "continuous.price", "store": "categorical.store",
         "categories": "categorical.categories"},
    ),
    "yelp": (
        {"user_id": "user_id", "business_id": "item_id", "stars": "rating", "date": "timestamp"},
        {"business_id": "item_id", "name": "text.name", "city": "categorical.city",
         "postal_code": "categorical.postal_code", "latitude": "continuous.latitude", "is_open": "categorical.is_open",
         "categories": "categorical.categories"},
    ),
    "goodbooks-10k": (
        {"user_id": "user_id", "book_id": "item_id", "rating": "rating"},
        {"book_id": "item_id", "authors": "categorical.authors", "title": "text.title",
         "original_publication_year": "continuous.original_publication_year"},
    ),
    "steam": (
        {"username": "user_id", "product_id": "item_id", "date": "timestamp"},
        {"id": "item_id", "app_name": "text.app_name", "title": "text.title", "genres": "categorical.genres",
         "tags": "categorical.tags", "price": "continuous.price", "early_access": "categorical.early_access",
         "developer": "categorical.developer", "release_date": "temporal.release_date"},
    ),
    "retailrocket": (
        {"timestamp": "timestamp", "visitorid": "user_id", "event": "interaction_type", "itemid": "item_id"}, None,
    ),
    "hm": (
        {"t_dat": "timestamp", "customer_id": "user_id", "article_id": "item_id"},
        {"article_id": "item_id", "product_code": "categorical.product_code", "prod_name": "text.prod_name",
         "product_type_no": "categorical.product_type_no", "product_type_name": "categorical.product_type_name",
         "colour_group_name": "text.colour_group_name", "detail_desc": "text.detail_desc"},
    ),
    "lightgcn": ({"user_id": "user_id", "item_id": "item_id"}, None),
    "recbole": (
        {"user_id:token": "user_id", "item_id:token": "item_id", "rating:float": "rating",
         "timestamp:float": "timestamp"},
        {"item_id:token": "item_id", "movie_title:token_seq": "text.movie_title",
         "release_year:token": "categorical.release_year", "class:token_seq": "categorical.class"},
    ),
}  # fmt: skip
"""Meanings of the columns of interactions and items of each data set of `LAYOUTS`."""


@pytest.mark.parametrize("name", EXPECTED)
def test_public_data_sets_are_understood_as_they_are(name, tmp_path):
    LAYOUTS[name](tmp_path)
    found = inferred(tmp_path)
    log, items = EXPECTED[name]
    assert found.questions == [] and meanings(found, "interactions") == log
    assert items is None or meanings(found, "items") == items
    dataset = Dataset.from_sources({"data": found.data})
    assert (len(dataset.users), len(dataset.items)) == (30, 20)
    assert ("timestamp" in dataset.interactions.column_names) == ("timestamp" in log.values())


def test_every_layout_is_tried():
    assert set(EXPECTED) | {"gowalla"} == set(LAYOUTS)  # the file of Gowalla has no header: see below


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("movielens", "recbole")])
def test_presets_read_public_data_sets(name, tmp_path):
    (tmp_path / "in").mkdir()
    LAYOUTS[name](tmp_path / "in")
    code, _, err = call("convert", name, tmp_path / "in", tmp_path / "out.json")
    assert code == 0 and "30 users, 20 items" in err, err
    converted = Dataset.read(tmp_path / "out.json")
    data, _ = load_preset(name, tmp_path / "in")
    dataset = Dataset.from_sources({"data": data})
    assert len(converted.interactions) == len(dataset.interactions) >= 240
    assert set(dataset.interactions.column_names) == set(converted.interactions.column_names)
    if name == "retailrocket":
        assert dataset.features("item") == ["categorical.available", "categorical.category"]
    if name == "hm":
        assert dataset.items["item_id"][0].as_py() == "0663713000"


def test_the_preset_of_movielens_csv_reads_what_the_reader_of_movielens_reads(tmp_path):
    LAYOUTS["movielens"](tmp_path)
    ours, theirs = Dataset.from_sources({"data": load_preset("movielens-csv", tmp_path)[0]}), Dataset.read(tmp_path)
    for part in ("users", "items", "interactions"):
        one, other = getattr(ours, part), getattr(theirs, part)
        key = [(name, "ascending") for name in ("user_id", "item_id", "timestamp") if name in one.column_names]
        assert one.sort_by(key).equals(other.select(one.column_names).sort_by(key))


def test_tables_that_a_preset_can_do_without_are_noted_and_others_are_errors(tmp_path):
    LAYOUTS["amazon-2023"](tmp_path)
    (tmp_path / "meta_All_Beauty.jsonl").unlink()
    data, notes = load_preset("amazon-2023", tmp_path)
    assert data["sources"]["items"] == [] and "meta_*.jsonl* is not there" in notes[0]
    with pytest.raises(DataError, match="The preset yelp reads: The Yelp open data set"):
        load_preset("yelp", tmp_path)
    with pytest.raises(InputError, match="there is no preset 'amazon'"):
        load_preset("amazon", tmp_path)
    assert "amazon-2014" in preset_names()


def test_a_config_by_a_preset_is_printed(tmp_path):
    LAYOUTS["retailrocket"](tmp_path)
    code, out, err = call("init", "--preset", "retailrocket", tmp_path)
    assert code == 0 and json.loads(out)["data"]["sources"]["root"] == str(tmp_path), err


# Names


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("userId", "user_id"), ("user_id:token", "user_id"), ("visitorid", "user_id"), ("Customer ID", "user_id"),
        ("Kunden-Nr", "user_id"), ("reviewerID", "user_id"), ("query_id", "user_id"), ("uid", "user_id"),
        ("parent_asin", "item_id"), ("SKU", "item_id"), ("StockCode", "item_id"), ("article_id", "item_id"),
        ("Product Number", "item_id"), ("movieId", "item_id"), ("unixReviewTime", "timestamp"),
        ("event_time", "timestamp"), ("InvoiceDate", "timestamp"), ("ts", "timestamp"), ("overall", "rating"),
        ("stars", "rating"), ("event_type", "interaction_type"), ("action", "interaction_type"), ("colour", None),
    ],
)  # fmt: skip
def test_the_names_of_the_field_are_known(name, role):
    assert (role_of(name) or (None,))[0] == role


# Questions


def test_ids_whose_names_say_nothing_are_asked_and_the_config_waits_for_the_answer(tmp_path):
    LAYOUTS["gowalla"](tmp_path)
    found = inferred(tmp_path)
    assert meanings(found, "interactions") == {
        "column_1": "?user_id | item_id", "column_2": "timestamp", "column_5": "?user_id | item_id",
    }  # fmt: skip
    assert "'column_1' and 'column_5' look like ids" in found.questions[0]
    code, out, err = call("init", tmp_path / "loc-gowalla_totalCheckins.txt")
    assert code == 0 and "please decide" in err
    (tmp_path / "cfg.json").write_text(out)
    code, _, err = call("describe", "--config", tmp_path / "cfg.json")
    assert code == 2 and "not decided" in err
    answered = out.replace('"column_1": "?user_id | item_id"', '"column_1": "user_id"')
    (tmp_path / "cfg.json").write_text(answered.replace("?user_id | item_id", "item_id"))
    assert call("describe", "--config", tmp_path / "cfg.json")[0] == 0


def log(days, **more):
    """A log whose days are written as given, with further columns."""
    names = ["user", "item", "day", *more]
    rows = [[f"u{n % 5}", f"i{n * n % 7}", day, *(more[key][n] for key in more)] for n, day in enumerate(days)]
    return "".join(";".join(map(str, cells)) + "\n" for cells in [names, *rows])


def test_days_and_months_that_could_be_either_are_asked(tmp_path):
    days = [f"{n % 12 + 1:02d}/{(n + 3) % 12 + 1:02d}/2023" for n in range(40)]
    found = inferred(tmp_path, {"log.csv": log(days)})
    assert meanings(found, "interactions")["day"] == "?timestamp" and "%m/%d/%Y" in found.questions[0]
    found = inferred(tmp_path, {"log.csv": log([*days, "25/01/2023"])})
    assert found.questions == []
    assert found.data["sources"]["interactions"][0]["columns"]["day"] == {"to": "timestamp", "time": "%d/%m/%Y"}


@pytest.mark.parametrize(("form", "changes"), [("2023-01-{:02d}", {}), ("{:02d}.01.2023", {"time": "%d.%m.%Y %H:%M"})])
def test_times_of_day_are_appended_to_the_days(tmp_path, form, changes):
    days = [form.format(n % 28 + 1) for n in range(40)]
    found = inferred(tmp_path, {"log.csv": log(days, hour=[f"{n % 24:02d}:30" for n in range(40)])})
    [table] = found.data["sources"]["interactions"]
    assert table["columns"]["day"] == {"to": "timestamp", "append": ["hour"], **changes}
    assert (
        str(Dataset.from_sources({"data": found.data}).interactions["timestamp"][1].as_py())[:16] == "2023-01-02 01:30"
    )


def test_two_ratings_are_asked(tmp_path):
    days = ["2023-01-01"] * 40
    numbers = [n % 5 + 1 for n in range(40)]
    found = inferred(tmp_path, {"log.csv": log(days, rating=numbers, score=numbers)})
    assert meanings(found, "interactions")["rating"] == meanings(found, "interactions")["score"] == "?rating"


def test_a_quantity_is_left_out_with_a_word_and_not_taken_for_a_weight(tmp_path):
    found = inferred(tmp_path, {"log.csv": log(["2023-01-01"] * 40, quantity=[n % 4 for n in range(40)])})
    assert "quantity" not in meanings(found, "interactions")
    assert any("quantity" in line and '"weight"' in line for line in found.lines)


def test_a_decimal_comma_that_may_group_thousands_is_asked(tmp_path):
    items = "item;price\n" + "".join(f"i{n};1,{n}50\n" for n in range(7))
    found = inferred(tmp_path, {"log.csv": log(["2023-01-01"] * 40), "items.csv": items})
    assert "price" not in meanings(found, "items") and "decimal" in found.questions[0]


# Tables


def test_tables_without_users_are_an_error_that_says_what_was_found(tmp_path):
    with pytest.raises(DataError, match=r"no table has columns of users and items: t.csv has a, b"):
        inferred(tmp_path, {"t.csv": "a,b\n1,2\n3,4\n"})


def test_order_lines_get_their_customers_from_the_orders(tmp_path):
    orders = "order_id,customer_id,order_date\n" + "".join(
        f"{n},c{n % 6},2023-01-{n % 28 + 1:02d}\n" for n in range(30)
    )
    lines = "order_id,product_id\n" + "".join(f"{n % 30},p{n * n % 11}\n" for n in range(90))
    products = "product_id,product_name,aisle_id\n" + "".join(
        f"p{n},Thing number {n} of all,{n % 3}\n" for n in range(11)
    )
    aisles = "aisle_id,aisle\n0,bread\n1,milk\n2,fruit\n"
    files = {"orders.csv": orders, "lines.csv": lines, "products.csv": products, "aisles.csv": aisles}
    found = inferred(tmp_path, files)
    [table] = found.data["sources"]["interactions"]
    assert table["join"][0]["on"] == "order_id" and meanings(found, "interactions") == {
        "product_id": "item_id", "customer_id": "user_id", "order_date": "timestamp",
    }  # fmt: skip
    assert meanings(found, "items")["aisle"] == "categorical.aisle"
    dataset = Dataset.from_sources({"data": found.data})
    assert len(dataset.interactions) == 90 and len(dataset.users) == 6


def test_a_wide_log_gives_the_features_of_users_and_items(tmp_path):
    rows = [(n * n % 13, n * 7 % 11, n) for n in range(150)]
    text = "customer,country,sku,title,price,channel,at\n"
    for u, i, n in rows:
        channel = ["web", "shop"][n * n % 7 < 3]
        text += f"{u},{['FR', 'DE'][u % 2]},{i},Thing number {i} with words,{i + 0.5},{channel},{1_600_000_000 + n}\n"
    found = inferred(tmp_path, {"log.csv": text})
    assert meanings(found, "interactions") == {
        "customer": "user_id", "country": "user.categorical.country", "sku": "item_id", "title": "item.text.title",
        "price": "item.continuous.price", "at": "timestamp",
    }  # fmt: skip


def test_parts_of_one_table_are_joined_and_other_files_name_the_type(tmp_path):
    days = ["2023-01-01"] * 40
    files = {"events_1.csv": log(days), "events_2.csv": log(days)}
    [table] = inferred(tmp_path, files).data["sources"]["interactions"]
    assert len(table["path"]) == 2 and "constants" not in table
    (tmp_path / "events_1.csv").rename(tmp_path / "views.csv")
    (tmp_path / "events_2.csv").rename(tmp_path / "purchases.csv")
    found = inferred(tmp_path).data["sources"]["interactions"]
    assert [one["constants"] for one in found] == [{"interaction_type": "purchases"}, {"interaction_type": "views"}]


def test_features_counted_from_interactions_are_left_out(tmp_path):
    items = "item;average_rating;rating_count;popularity\n" + "".join(f"i{n};{n / 2};{n};{n}\n" for n in range(7))
    found = inferred(tmp_path, {"log.csv": log(["2023-01-01"] * 40), "items.csv": items})
    assert "items" not in found.data["sources"] or set(meanings(found, "items").values()) == {"item_id"}


def test_items_without_a_record_are_kept_by_their_ids_which_is_said(tmp_path):
    items = "item;name\n" + "".join(f"i{n};Some words about {n}\n" for n in range(3))
    found = inferred(tmp_path, {"log.csv": log(["2023-01-01"] * 40), "items.csv": items})
    assert found.data["unknown_ids"] == "keep" and any("have no record" in line for line in found.lines)


def test_text_of_another_encoding_is_read_and_said(tmp_path):
    items = "item;name\n" + "".join(f"i{n};Füller Größe {n} für alle\n" for n in range(7))
    found = inferred(tmp_path, {"log.csv": log(["2023-01-01"] * 40), "items.csv": items.encode("cp1252")})
    assert found.data["sources"]["items"][0]["format"] == {"encoding": "cp1252"}
    assert any("cp1252" in line for line in found.lines)
    assert Dataset.from_sources({"data": found.data}).items["text.name"][0].as_py() == "Füller Größe 0 für alle"


# The command


def test_init_writes_a_config_that_trains(tmp_path, monkeypatch):
    LAYOUTS["movielens"](tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = call("init", "ratings.csv", "movies.csv", "tags.csv")
    assert code == 0 and "userId" in err and "-> user_id" in err and "tags.csv" in err
    (tmp_path / "cfg.json").write_text(out)
    more = ["--set", "training.epochs=1", "--set", "evaluation.report=false", "--set", "blend=null"]
    code, out, err = call("train", "--config", "cfg.json", "--output", tmp_path / "runs", *more)
    assert code == 0 and "30 users, 20 items, 240 interactions" in out, err
    code, out, err = call("init", "--config", "cfg.json")
    assert code == 0 and json.loads(out)["data"]["sources"]["interactions"], err


def test_parts_are_named_by_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(log(["2023-01-01"] * 40))
    (tmp_path / "b.csv").write_text("code;words\n" + "".join(f"i{n};Some words about {n}\n" for n in range(7)))
    code, out, err = call("init", "a.csv", "--items", "b.csv")
    assert code == 0 and json.loads(out)["data"]["sources"]["items"][0]["columns"]["words"] == "text.words", err
    for arguments in (["--query", "items=x"], ["a.csv", "--query", "select 1"]):
        code, _, err = call("init", *arguments)
        assert code == 2 and "--query" in err
