"""The mapping of columns in `data.sources`: roles, features, transforms, side tables, wide logs."""

import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from anyrec import Config, Dataset
from anyrec.core.errors import ConfigError, DataError

LOG = "user,item,when\nu1,i1,2024-01-01\nu2,i2,2024-01-02\nu1,i2,2024-01-03\n"


def read(folder, files=None, tables=None, **sources):
    """The dataset of tables in a folder. A part that is one table is given without a list."""
    for name, text in (files or {}).items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    parts = {part: table if isinstance(table, list) else [table] for part, table in sources.items()}
    options = {"unknown_ids": "keep", "sources": {"root": str(folder), **parts}}
    return Dataset.from_sources({"data": options}, tables=tables)


def faults(folder, files=None, **sources):
    with pytest.raises((DataError, ConfigError)) as caught:
        read(folder, files, **sources)
    return [str(fault) for fault in caught.value.faults]


def values(tmp_path, cells, target, **changes):
    """The values of one column of items, read from a CSV file."""
    lines = "".join(f'i{n};"{cell}"\n' if cell else f"i{n};\n" for n, cell in enumerate(cells))
    columns = {"item": "item_id", "cell": {"to": target, **changes}}
    items = {"path": "items.csv", "columns": columns, "format": {"separator": ";"}}
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    return read(tmp_path, {"items.csv": "item;cell\n" + lines, "log.csv": LOG}, items=items, interactions=log)


def column(dataset, name):
    return dataset.items.column(name).to_pylist()[: len(dataset.items)]


# Transforms


def test_texts_are_split_without_empty_parts(tmp_path):
    found = values(tmp_path, ["a | b", "|c|", "", "(none)"], "categorical.x", split="|", values={"(none)": None})
    assert column(found, "categorical.x")[:4] == [["a", "b"], ["c"], None, None]


@pytest.mark.parametrize(
    ("mark", "cells", "expected"),
    [
        (",", ["1.299,50", "12,5", "1 299", "€ 7,00", "-3", "8,5 EUR"], [1299.5, 12.5, 1299.0, 7.0, -3.0, 8.5]),
        (".", ["1,299.50", "$12.5", "50 %", "1'000", "+1e3", "7."], [1299.5, 12.5, 50.0, 1000.0, 1000.0, 7.0]),
    ],
)
def test_numbers_have_either_decimal_mark_thousands_and_currencies(tmp_path, mark, cells, expected):
    assert column(values(tmp_path, cells, "continuous.price", decimal=mark), "continuous.price") == expected


def test_a_number_that_could_be_misread_is_a_fault(tmp_path):
    with pytest.raises(DataError, match=r"items.csv line 3, column 'cell': '12.5' is not a number"):
        values(tmp_path, ["12,5", "12.5"], "continuous.price", decimal=",")


def test_the_decimal_mark_of_a_table_holds_for_all_its_numbers(tmp_path):
    items = {"path": "i.csv", "columns": {"item": "item_id", "a": "continuous.a", "b": "text.b"}}
    items["format"] = {"separator": ";", "decimal": ","}
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    found = read(tmp_path, {"i.csv": "item;a;b\ni1;1,5;1,5\ni2;2;x\n", "log.csv": LOG}, items=items, interactions=log)
    assert column(found, "continuous.a") == [1.5, 2.0] and column(found, "text.b") == ["1,5", "x"]


def test_booleans_are_yes_and_no_in_several_spellings(tmp_path):
    found = values(tmp_path, ["Yes", "n", "TRUE", "0", ""], "continuous.new", boolean=True)
    assert column(found, "continuous.new") == [1.0, 0.0, 1.0, 0.0, None]
    found = values(tmp_path, ["on", "off"], "categorical.new", boolean=True)
    assert column(found, "categorical.new")[:2] == ["true", "false"]
    with pytest.raises(DataError, match="'maybe' is neither yes nor no"):
        values(tmp_path, ["yes", "maybe"], "continuous.new", boolean=True)


def test_values_are_mapped_and_others_stay(tmp_path):
    found = values(tmp_path, ["s", "m", "xl"], "categorical.size", values={"s": "small", "m": None})
    assert column(found, "categorical.size") == ["small", None, "xl"]
    found = values(tmp_path, ["good", "bad"], "continuous.q", values={"good": 1, "bad": -0.5})
    assert column(found, "continuous.q")[:2] == [1.0, -0.5]


@pytest.mark.parametrize("cell", ['[""a"", ""it\'s""]', "['a', 'it\\'s']", "[u'a', it's]"])
def test_lists_in_json_and_in_python_are_read(tmp_path, cell):
    cell = cell.replace("[u'a', it's]", '[\'a\', ""it\'s""]')
    found = values(tmp_path, [cell, "", "[]", "['b', None]"], "categorical.tags", json_list=True)
    assert column(found, "categorical.tags")[:2] == [["a", "it's"], None]


def test_cells_that_are_no_lists_are_faults_with_their_lines(tmp_path):
    with pytest.raises(DataError, match=r"items.csv line 3, column 'cell': '\[a' is no list"):
        values(tmp_path, ["['a']", "[a"], "categorical.tags", json_list=True)


def test_a_year_is_the_last_one_of_a_text(tmp_path):
    titles = ["2001: A Space Odyssey (1968)", "Heat", "Blade Runner 2049 (2017)"]
    assert column(values(tmp_path, titles, "continuous.year", extract="year"), "continuous.year") == [
        1968.0,
        None,
        2017.0,
    ]
    found = values(tmp_path, ["a-12-b", "c"], "categorical.n", extract="-([0-9]+)-")
    assert column(found, "categorical.n")[:2] == ["12", None]
    assert (
        column(values(tmp_path, titles, "text.title", remove=r"\s*[(][0-9]{4}[)]$"), "text.title")[0]
        == "2001: A Space Odyssey"
    )
    with pytest.raises(ConfigError, match="Invalid regular expression"):
        values(tmp_path, titles, "text.title", remove="(")


def test_columns_are_appended_and_a_column_has_several_meanings(tmp_path):
    log = {
        "path": "log.csv",
        "columns": {
            "user": "user_id",
            "item": "item_id",
            "day": [{"to": "timestamp", "append": ["clock"]}, "context.day"],
        },
    }
    text = "user,item,day,clock\nu1,i1,2024-01-01,10:30\nu2,i2,2024-01-02,\n"
    found = read(tmp_path, {"log.csv": text}, interactions=log)
    assert found.interactions["timestamp"].cast(pa.string()).to_pylist() == [
        "2024-01-01 10:30:00.000000Z",
        "2024-01-02 00:00:00.000000Z",
    ]
    assert found.interactions["context.day"].to_pylist() == ["2024-01-01", "2024-01-02"]


# Times


def times(tmp_path, cells, **changes):
    lines = "".join(f'u1;i{n};"{cell}"\n' for n, cell in enumerate(cells))
    columns = {"user": "user_id", "item": "item_id", "when": {"to": "timestamp", **changes}}
    log = {"path": "log.csv", "columns": columns, "format": {"separator": ";"}}
    found = read(tmp_path, {"log.csv": "user;item;when\n" + lines}, interactions=log)
    return [str(one) for one in found.interactions["timestamp"].cast(pa.timestamp("s", "UTC")).to_pylist()], found.notes


MOMENT = "2019-10-05 07:00:00+00:00"


@pytest.mark.parametrize(
    ("cell", "changes", "note"),
    [
        ("1570258800", {}, None),
        ("1570258800000", {}, "milliseconds"),
        ("1570258800000000", {}, "microseconds"),
        ("1570258800000000000", {}, "nanoseconds"),
        ("1570258800000", {"time": "ms"}, None),
        ("2019-10-05 07:00:00 UTC", {}, None),
        ("2019-10-05T09:00:00+02:00", {"zone": "America/New_York"}, None),
        ("2019-10-05 09:00:00", {"zone": "Europe/Berlin"}, None),
        ("05.10.2019 07:00", {"time": "%d.%m.%Y %H:%M"}, None),
        ("10/05/2019 09:00", {"time": "%m/%d/%Y %H:%M", "zone": "Europe/Berlin"}, None),
        ("2019-10-05 07:00:00.123", {"time": "%Y-%m-%d %H:%M:%S.%f"}, None),
    ],
)
def test_times_of_any_unit_form_and_zone(tmp_path, cell, changes, note):
    found, notes = times(tmp_path, [cell, cell], **changes)
    assert found == [MOMENT, MOMENT] and any(note in one for one in notes) if note else found == [MOMENT, MOMENT]


def test_dates_as_whole_numbers_are_no_seconds(tmp_path):
    found, notes = times(tmp_path, ["20191005", "20191231"])
    assert found[0] == "2019-10-05 00:00:00+00:00" and "dates" in notes[0]


def test_times_that_cannot_be_read_are_faults(tmp_path):
    for cells, changes, message in (
        (["1570258800000", "1570258800"], {}, "most times of this column are milliseconds"),
        (["05.10.2019", "06.10.2019"], {}, "is not a time"),
        (["05.13.2019"], {"time": "%d.%m.%Y"}, "does not have the form"),
        (["x"], {"time": "s"}, "is not a time"),
    ):
        with pytest.raises(DataError, match=message):
            times(tmp_path, cells, **changes)
    with pytest.raises(ConfigError, match="there is no time zone 'Berlin'"):
        times(tmp_path, ["2019-10-05"], zone="Berlin")


# Ids


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["007", "7"], ["007", "7"]),
        (["9007199254740993", "1"], [9007199254740993, 1]),
        (["12.0", "7.0"], [12, 7]),
        (["1.0", "1.1"], ["1.0", "1.1"]),
        (["NA", "x"], ["NA", "x"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
    ],
)
def test_ids_are_not_altered(tmp_path, ids, expected):
    text = "user,item\n" + "".join(f"{one},i\n" for one in ids)
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    found = read(tmp_path, {"log.csv": text}, interactions=log)
    assert found.interactions["user_id"].to_pylist() == expected
    assert any("whole number" in note for note in found.notes) == (ids[0] == "12.0")


def test_ids_of_several_types_in_json_are_faults_with_rows(tmp_path):
    log = {"path": "log.jsonl", "columns": {"user": "user_id", "item": "item_id"}}
    text = '{"user": 1, "item": "a"}\n{"user": 2, "item": "a"}\n{"user": "1", "item": "a"}\n'
    assert faults(tmp_path, {"log.jsonl": text}, interactions=log)[0].startswith(
        "log.jsonl row 3, column 'user': most ids"
    )


def test_ids_in_floats_that_do_not_hold_them_are_faults(tmp_path):
    pyarrow.parquet.write_table(pa.table({"user": [1e17, 2.0], "item": [1, 2]}), tmp_path / "log.parquet")
    log = {"path": "log.parquet", "columns": {"user": "user_id", "item": "item_id"}}
    assert "stored as a float" in faults(tmp_path, interactions=log)[0]


def test_whole_numbers_of_csv_and_of_parquet_are_the_same_ids(tmp_path):
    pyarrow.parquet.write_table(pa.table({"id": [1, 2], "name": ["a", "b"]}), tmp_path / "items.parquet")
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    items = {"path": "items.parquet", "columns": {"id": "item_id", "name": "text.name"}}
    found = read(tmp_path, {"log.csv": "user,item\nu,1\nu,2\n"}, items=items, interactions=log)
    assert found.items["item_id"].to_pylist() == [1, 2] and len(found.items) == 2


# Missing values


def test_texts_that_stand_for_missing_values_are_said(tmp_path):
    found = values(tmp_path, ["NA", "\\N", "NULL", "", "red"], "categorical.colour")
    assert column(found, "categorical.colour") == [None, None, None, None, "red"]
    assert any("'NA' is read as a missing value in cell (1)" in note for note in found.notes)


def test_nulls_of_a_format_are_declared(tmp_path):
    items = {"path": "i.csv", "columns": {"item": "item_id", "land": "categorical.land"}, "format": {"nulls": ["-"]}}
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    found = read(tmp_path, {"i.csv": "item,land\ni1,NA\ni2,-\n", "log.csv": LOG}, items=items, interactions=log)
    assert column(found, "categorical.land") == ["NA", None]


# Several tables


ORDERS = "order,customer,day\n1,anna,2024-01-01\n2,ben,2024-01-02\n"
LINES = "order,sku\n1,a\n1,b\n2,a\n9,b\n"


def test_side_tables_are_joined_by_a_key_before_the_mapping(tmp_path):
    log = {
        "path": "lines.csv",
        "join": [{"path": "orders.csv", "on": "order"}],
        "columns": {"customer": "user_id", "sku": "item_id", "day": "timestamp"},
    }
    options = {"unknown_ids": "drop"}
    (tmp_path / "lines.csv").write_text(LINES)
    (tmp_path / "orders.csv").write_text(ORDERS)
    found = Dataset.from_sources({"data": {**options, "sources": {"root": str(tmp_path), "interactions": [log]}}})
    assert found.interactions["user_id"].to_pylist() == ["anna", "anna", "ben"]
    assert "lines.csv: 1 of 4 rows have no row in orders.csv." in found.notes


def test_rows_of_one_key_become_one_value(tmp_path):
    tags = "movie,tag,score\n1,fun,1\n1,fun,3\n1,dark,5\n3,lost,9\n"
    how = {"tag": "list", "score": "mean"}
    items = {
        "path": "movies.csv",
        "join": [{"path": "tags.csv", "on": {"id": "movie"}, "columns": how, "prefix": "t_"}],
        "columns": {"id": "item_id", "t_tag": "categorical.tags", "t_score": "continuous.score"},
    }
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    files = {"movies.csv": "id\n1\n2\n", "tags.csv": tags, "log.csv": "user,item\nu,1\nu,2\n"}
    found = read(tmp_path, files, items=items, interactions=log)
    assert column(found, "categorical.tags") == [["fun", "dark"], None] and column(found, "continuous.score") == [
        3.0,
        None,
    ]
    for one, expected in (("count", 3.0), ("sum", 9.0), ("min", 1.0), ("max", 5.0), ("first", 1.0), ("last", 5.0)):
        how["score"] = one
        assert column(read(tmp_path, items=items, interactions=log), "continuous.score")[0] == expected
    how["score"] = "value"
    assert "the key '1' occurs again" in faults(tmp_path, items=items, interactions=log)[0]


def test_a_table_that_repeats_ids_is_aggregated_or_says_which_row_counts(tmp_path):
    text = "item,tag,price\ni1,red,1\ni1,blue,2\ni2,red,\n"
    items = {
        "path": "i.csv",
        "columns": {
            "item": "item_id",
            "tag": {"to": "categorical.tag", "aggregate": "list"},
            "price": "continuous.price",
        },
    }
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    found = read(tmp_path, {"i.csv": text, "log.csv": LOG}, items=items, interactions=log)
    assert column(found, "categorical.tag") == [["red", "blue"], ["red"]] and column(found, "continuous.price") == [
        1.0,
        None,
    ]
    items["columns"]["tag"] = "categorical.tag"
    assert faults(tmp_path, items=items, interactions=log)[0].startswith(
        "i.csv line 3, column 'item': 'i1' occurs again"
    )
    found = read(tmp_path, items={**items, "repeats": "latest"}, interactions=log)
    assert column(found, "categorical.tag") == ["blue", "red"]
    assert any("1 id has several values of continuous.price, for example 'i1'" in note for note in found.notes)


def test_a_wide_log_is_split_into_users_items_and_interactions(tmp_path):
    text = (
        "customer,country,sku,title,price,at\n"
        "anna,FR,1,Pen,2.0,2024-01-02\nben,,2,Ink,5,2024-01-01\nanna,DE,1,Pen,1.5,2024-01-01\nanna,,2,Ink,5,2024-01-03\n"
    )
    columns = {
        "customer": "user_id", "country": "user.categorical.country", "sku": "item_id",
        "title": "item.text.title", "price": ["item.continuous.price", "context.price"], "at": "timestamp",
    }  # fmt: skip
    found = read(tmp_path, {"log.csv": text}, interactions={"path": "log.csv", "columns": columns})
    assert found.users.to_pylist() == [
        {"user_id": "anna", "categorical.country": "FR"},  # of the latest row that has a value
        {"user_id": "ben", "categorical.country": None},
    ]
    assert found.items.to_pylist() == [
        {"item_id": 1, "continuous.price": 2.0, "text.title": "Pen"},
        {"item_id": 2, "continuous.price": 5.0, "text.title": "Ink"},
    ]
    assert found.interactions["context.price"].to_pylist() == [2.0, 5, 1.5, 5]
    assert sum("several values" in note for note in found.notes) == 2


def test_records_of_several_tables_are_completed_by_each_other(tmp_path):
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    files = {"a.csv": "item,x\ni1,1\n", "b.csv": "item,x,y\ni1,2,3\ni2,4,5\n", "log.csv": LOG}
    items = [
        {"path": name, "columns": {"item": "item_id", "x": "continuous.x", **more}}
        for name, more in (("a.csv", {}), ("b.csv", {"y": "continuous.y"}))
    ]
    found = read(tmp_path, files, items=items, interactions=log)
    assert column(found, "continuous.x") == [1.0, 4.0] and column(found, "continuous.y") == [3.0, 5.0]


def test_tables_of_several_types_of_interactions_follow_one_another(tmp_path):
    tables = [
        {
            "path": f"{kind}.csv",
            "columns": {"user": "user_id", "item": "item_id"},
            "constants": {"interaction_type": kind},
        }
        for kind in ("view", "buy")
    ]
    found = read(tmp_path, {"view.csv": "user,item\na,1\na,2\n", "buy.csv": "user,item\na,2\n"}, interactions=tables)
    assert found.interactions["interaction_type"].to_pylist() == ["view", "view", "buy"]


def test_lists_of_interactions_are_exploded(tmp_path):
    columns = {"who": "user_id", "basket": {"to": "item_id", "split": " ", "explode": True}, "day": "timestamp"}
    found = read(
        tmp_path, {"b.csv": "who,basket,day\na,1 2,2024-01-01\nb,,2024-01-02\nc,2,2024-01-03\n"},
        interactions={"path": "b.csv", "columns": columns},
    )  # fmt: skip
    assert found.interactions.select(["user_id", "item_id"]).to_pylist() == [
        {"user_id": "a", "item_id": 1}, {"user_id": "a", "item_id": 2}, {"user_id": "c", "item_id": 2},
    ]  # fmt: skip


def test_only_the_rows_with_listed_values_are_read(tmp_path):
    text = "item,property,value\ni1,colour,red\ni1,size,9\ni2,colour,blue\n"
    items = {
        "path": "p.csv",
        "only": {"property": ["colour"]},
        "columns": {"item": "item_id", "value": "categorical.colour"},
    }
    log = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
    found = read(tmp_path, {"p.csv": text, "log.csv": LOG}, items=items, interactions=log)
    assert column(found, "categorical.colour") == ["red", "blue"]


def test_fields_of_nested_objects_are_columns(tmp_path):
    lines = [
        {"who": {"id": "u1"}, "item": "i1", "meta": {"price": 2.5, "images": [{"large": "a.jpg"}, {"large": "b.jpg"}]}},
        {"who": {"id": "u2"}, "item": "i2", "meta": None},
    ]
    columns = {
        "who.id": "user_id",
        "item": "item_id",
        "meta.price": "item.continuous.price",
        "meta.images.large": "item.image.photo",
    }
    found = read(
        tmp_path,
        {"log.jsonl": "\n".join(map(json.dumps, lines))},
        interactions={"path": "log.jsonl", "columns": columns},
    )
    assert column(found, "continuous.price") == [2.5, None]
    assert column(found, "image.photo") == [["a.jpg", "b.jpg"], None]


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, pl.DataFrame])
def test_data_frames_take_the_place_of_tables(tmp_path, make):
    log = {"path": "log", "columns": {"user": "user_id", "item": "item_id", "when": "timestamp"}}
    frame = make({"user": ["a", "b"], "item": [1, 2], "when": ["2024-01-01", "2024-01-02"]})
    found = read(tmp_path, tables={"log": frame}, interactions=log)
    assert found.interactions["item_id"].to_pylist() == [1, 2]


def test_without_columns_the_names_of_the_data_format_hold(tmp_path):
    found = read(tmp_path, {"log.csv": "user_id,item_id,rating,other\na,1,5,x\n"}, interactions={"path": "log.csv"})
    assert found.interactions["rating"].to_pylist() == [5.0]
    assert any("The column 'other' of interactions is not used" in note for note in found.notes)


# The same rows in another container


def test_the_same_rows_have_the_same_hash_whatever_the_container(tmp_path):
    rows = {
        "user": [1, 2, 1], "item": ["a", "b", "b"], "stars": [4.0, None, 5.0],
        "at": ["2024-01-01 10:00:00", "2024-01-02 00:00:00", "2024-01-03 00:00:00"],
    }  # fmt: skip
    table = pa.table(rows)
    columns = {"user": "user_id", "item": "item_id", "stars": "rating", "at": "timestamp"}
    typed = table.set_column(3, "at", table["at"].cast(pa.timestamp("ms")))
    pyarrow.parquet.write_table(typed, tmp_path / "a.parquet")
    table.to_pandas().to_csv(tmp_path / "b.csv", index=False)
    table.to_pandas().to_csv(tmp_path / "c.tsv.gz", index=False, sep="\t", encoding="utf-16")
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    with pa.ipc.new_file(tmp_path / "e.arrow", table.schema) as writer:
        writer.write_table(table)
    found = {
        path.name: read(tmp_path, interactions={"path": path.name, "columns": columns}).fingerprint()
        for path in sorted(tmp_path.iterdir())
    }
    assert len(found) == 5 and len(set(found.values())) == 1, found


# The config


def test_all_faults_of_the_sources_are_reported_together():
    sources = {
        "items": [{"path": "i.csv", "columns": {"a": "item_id", "b": "text.t", "c": "text.t", "d": "titel"}}],
        "interactions": [
            {
                "path": "l.csv",
                "columns": {"u": "user_id", "x": "? rating | weight", "n": {"to": "label", "aggregate": "max"}},
            }
        ],
    }
    with pytest.raises(ConfigError) as caught:
        Dataset.from_sources({"data": {"sources": sources}})
    assert {fault.where: fault.kind for fault in caught.value.faults} == {
        "/data/sources/items/0/columns": "doubled column",
        "/data/sources/items/0/columns/d": "bad value",
        "/data/sources/interactions/0/columns/x": "open question",
        "/data/sources/interactions/0/columns/n/aggregate": "no effect",
        "/data/sources/interactions/0/columns": "missing column",
    }
    assert "Write 'rating' or 'weight', or null to leave it out" in str(caught.value)


def test_columns_that_are_not_there_are_named_with_the_nearest(tmp_path):
    log = {"path": "log.csv", "columns": {"user": "user_id", "itm": "item_id", "whn": "timestamp"}}
    found = faults(tmp_path, {"log.csv": LOG}, interactions=log)
    assert len(found) == 2 and "log.csv has no column 'itm'. Did you mean 'item'?" in found[0]


def test_a_table_needs_a_place():
    for table in ({}, {"path": "", "columns": {}}, {"database": "x.db", "query": "q", "table": "t"}):
        with pytest.raises(ConfigError, match=r"needs a `path`|exclude each other"):
            Dataset.from_sources({"data": {"sources": {"interactions": [table]}}})
    with pytest.raises(ConfigError, match="the config names no tables"):
        Dataset.from_sources(Config())
