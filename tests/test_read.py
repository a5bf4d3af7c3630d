"""Reading: the same columns from every format, and every fault in one pass, by its pointer."""

import json
from pathlib import Path

import jsonschema
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.formats.write_json import write_json
from anyrec.data.ids import FEW, rows_of
from anyrec.data.partial import read_partial

SCHEMA = json.loads((Path(__file__).parent.parent / "schemas" / "dataset.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def document(**changes):
    base = {
        "user_data": [
            {
                "user_id": "a",
                "categorical": {"job": "nurse", "langs": ["en", "fr"]},
                "continuous": {"age": 30},
                "text": {"bio": "hi"},
            },
            {
                "user_id": "b",
                "temporal": {"logins": ["2024-01-01T10:00:00Z", "2024-01-02"], "spend": [1, 2.5], "had": ["x"]},
            },
        ],
        "item_data": [
            {
                "item_id": "x",
                "continuous": {"price": 9.5},
                "text": {"title": ["One", "Uno"]},
                "audio": {"clip": "x.wav"},
            },
            {"item_id": "y", "image": {"front": "y.png"}, "categorical": {"new": True, "size": 2}},
        ],
        "interactions": [
            {
                "user_id": "a",
                "item_id": "x",
                "interaction_type": "view",
                "timestamp": "2024-01-01T00:00:00Z",
                "rating": 4,
            },
            {
                "user_id": "b",
                "item_id": "y",
                "timestamp": "2024-01-01T02:00:00+02:00",
                "label": 0,
                "context": {"device": "tv"},
            },
        ],
    }
    return {**base, **changes}


def read(folder, content, options=None):
    path = folder / "data.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Dataset.read(path, options)


def test_every_group_arrives_as_documented(tmp_path):
    data = read(tmp_path, document())
    users, items, interactions = data.users.to_pylist(), data.items.to_pylist(), data.interactions.to_pylist()
    assert users[0]["categorical.langs"] == ["en", "fr"]
    assert users[0]["continuous.age"] == 30.0
    assert users[1]["temporal.spend"] == [1.0, 2.5]
    assert users[1]["temporal.had"] == ["x"]
    assert [t.isoformat() for t in users[1]["temporal.logins"]] == [
        "2024-01-01T10:00:00+00:00",
        "2024-01-02T00:00:00+00:00",
    ]
    assert data.roles == {"user.had": "items", "user.logins": "timestamps", "user.spend": "numbers"}
    assert len([note for note in data.notes if "inferred" in note]) == 3
    assert items[1]["categorical.new"] == "true" and items[1]["categorical.size"] == "2"
    assert items[0]["text.title"] == ["One", "Uno"]
    assert items[0]["audio.clip"] == "x.wav"
    assert interactions[0]["timestamp"] == interactions[1]["timestamp"]
    assert [row["label"] for row in interactions] == [None, 0]
    assert interactions[1]["context.device"] == "tv"
    assert "weight" not in data.interactions.column_names
    assert data.root == tmp_path


def test_epoch_seconds_and_iso_times_may_be_mixed(tmp_path):
    rows = [
        {"user_id": "a", "item_id": "x", "timestamp": t}
        for t in (1704067200, "2024-01-01", 1704067200.5, None, "2024-01-01 00:00:00")
    ]
    times = read(tmp_path, document(interactions=rows)).interactions["timestamp"].to_pylist()
    assert times[0] == times[1] == times[4]
    assert times[2].microsecond == 500_000 and times[3] is None


def test_declared_roles_take_precedence_over_inferred_ones(tmp_path):
    options = DataConfig(roles={"user.spend": "timestamps"})
    assert read(tmp_path, document(), options).roles["user.spend"] == "timestamps"


FAULTY = {
    "unknown user": (
        lambda d: d["interactions"][0].update(user_id="zz"),
        "/interactions/0/user_id",
        "no record in user_data has the id 'zz'",
    ),
    "unknown item, other type": (
        lambda d: d["interactions"].append({"user_id": "a", "item_id": 1}),
        "/interactions/2/item_id",
        "most ids here are texts",
    ),
    "duplicate id": (
        lambda d: d["user_data"].append({"user_id": "a"}),
        "/user_data/2/user_id",
        "is the id of /user_data/0 as well",
    ),
    "mixed ids": (lambda d: d["item_data"].append({"item_id": 3}), "/item_data/2/item_id", "most ids here are texts"),
    "missing id": (lambda d: d["user_data"].append({}), "/user_data/2/user_id", "found None"),
    "true as id": (lambda d: d["user_data"].append({"user_id": True}), "/user_data/2/user_id", "found True"),
    "empty id": (lambda d: d["user_data"].append({"user_id": ""}), "/user_data/2/user_id", "empty text"),
    "text as number": (
        lambda d: d["item_data"][0]["continuous"].update(price="9"),
        "/item_data/0/continuous/price",
        "found '9'",
    ),
    "number as text": (lambda d: d["item_data"][0]["text"].update(title=5), "/item_data/0/text/title", "found 5"),
    "nan": (
        lambda d: d["item_data"][0]["continuous"].update(price=float("nan")),
        "/item_data/0/continuous/price",
        "NaN and infinity",
    ),
    "infinity in a list": (
        lambda d: d["user_data"][1]["temporal"].update(spend=[1, float("inf")]),
        "/user_data/1/temporal/spend",
        "NaN and infinity",
    ),
    "bad time": (
        lambda d: d["interactions"][0].update(timestamp="yesterday"),
        "/interactions/0/timestamp",
        "'yesterday' is not a time",
    ),
    "milliseconds": (
        lambda d: d["interactions"][0].update(timestamp=1704067200000),
        "/interactions/0/timestamp",
        "is not a time. It looks like milliseconds since 1970: divide it by 1,000.",
    ),
    "bad label": (lambda d: d["interactions"][1].update(label=3), "/interactions/1/label", "a label is 0 or 1"),
    "rating as text": (
        lambda d: d["interactions"][0].update(rating="5"),
        "/interactions/0/rating",
        "rating is a number",
    ),
    "group not an object": (
        lambda d: d["user_data"][0].update(text="hello"),
        "/user_data/0/text",
        "object of named features",
    ),
    "record not an object": (lambda d: d["item_data"].append(7), "/item_data/2", "expected an object"),
    "no interactions": (lambda d: d.update(interactions=[]), "/interactions", "there is no interaction"),
    "misspelt part": (
        lambda d: d.update(item_dat=d.pop("item_data")),
        "/item_data",
        "Rename 'item_dat' to 'item_data'",
    ),
    "interactions no list": (lambda d: d.update(interactions={}), "/interactions", "expected a list"),
}


def without_users(content):
    content["users"] = content.pop("user_data")


def numbered(content):
    for row in content["interactions"]:
        row["user_id"] = 5


def unnamed(content):
    for row in content["interactions"]:
        row["user"] = row.pop("user_id")


ONE_CAUSE = {
    "a list under another name": without_users,
    "a list that is empty": lambda d: d.update(user_data=[]),
    "a record without its id": lambda d: d["user_data"][0].pop("user_id"),
    "a record whose id is empty": lambda d: d["user_data"][0].update(user_id=""),
    "a record whose id is of another type": lambda d: d["item_data"][0].update(item_id=[7]),
    "ids that are numbers in one part only": numbered,
    "no id in any record": unnamed,
}


@pytest.mark.parametrize("name", ONE_CAUSE)
def test_one_cause_is_one_fault(tmp_path, name):
    content = document()
    ONE_CAUSE[name](content)
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert sum(error.value.counts.values()) == 1, error.value


def test_an_id_is_unknown_for_its_own_reason_if_more_are_unknown_than_records_without_an_id(tmp_path):
    content = document()
    content["user_data"].append({})
    content["interactions"] += [{"user_id": "c", "item_id": "x"}, {"user_id": "d", "item_id": "x"}]
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert error.value.counts == {"bad id": 1, "unknown id": 2}


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("title", "A kite", 'Put it into a group: {"text": {"title": ...}}'),
        ("categorial", "red", "Did you mean 'categorical'?"),
        ("text", ["red"], 'Write {"text": {"name": ...}}.'),
        ("text.title", "A kite", 'Write {"text": {"title": ...}}.'),
    ],
)
def test_a_feature_outside_a_group_is_a_fault_that_says_how_to_write_it(tmp_path, key, value, hint):
    content = document()
    content["item_data"][0][key] = value
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert hint in str(error.value)


def test_the_fields_that_unused_keys_of_interactions_may_mean_are_suggested(tmp_path):
    content = document()
    content["interactions"][0].update(timestmp=5, colour="red")
    assert any(
        "'colour', 'timestmp', which are not used" in note and "'timestmp': Did you mean 'timestamp'?" in note
        for note in read(tmp_path, content).notes
    )


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_names_its_place_and_what_was_found(tmp_path, name):
    spoil, where, what = FAULTY[name]
    content = document()
    spoil(content)
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    line = next(line for line in str(error.value).splitlines() if line.strip().startswith(where + ":"))
    assert what in line


def test_all_faults_are_reported_in_one_pass_and_at_most_twenty_of_a_kind_are_shown(tmp_path):
    content = document()
    for name in ("unknown user", "nan", "bad label", "duplicate id"):
        FAULTY[name][0](content)
    content["interactions"] += [{"user_id": "a", "item_id": f"no{n}"} for n in range(30)]
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert error.value.counts == {"unknown id": 31, "not finite": 1, "bad label": 1, "duplicate id": 1}
    assert "... and 11 more of kind 'unknown id'" in str(error.value)
    assert str(error.value).startswith("34 faults in the data:")


def test_a_record_that_is_not_an_object_does_not_shift_the_pointers_of_later_records(tmp_path):
    content = document()
    content["item_data"].insert(0, 7)
    content["item_data"][2]["continuous"] = {"price": "dear"}
    with pytest.raises(DataError) as error:
        read(tmp_path, content)
    assert {fault.where for fault in error.value.faults} >= {"/item_data/0", "/item_data/2/continuous/price"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ('{"user_data": [', "not valid JSON"),
        ("[1]", "expected an object|a dataset is an object"),
        ("{\n 1: 2}", ":2:2"),
    ],
)
def test_a_broken_file_is_refused_with_the_place_where_it_breaks(tmp_path, text, what):
    with pytest.raises(DataError, match=what):
        read(tmp_path, text)
    with pytest.raises(DataError, match="no such file"):
        Dataset.read(tmp_path / "nowhere.json")
    (tmp_path / "latin.json").write_bytes('{"user_data": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        Dataset.read(tmp_path / "latin.json")


@pytest.mark.parametrize(("choice", "users", "interactions"), [("drop", 2, 2), ("keep", 3, 3)])
def test_unknown_ids_can_be_dropped_or_kept(tmp_path, choice, users, interactions):
    content = document()
    content["interactions"].append({"user_id": "new", "item_id": "x"})
    data = read(tmp_path, content, DataConfig(unknown_ids=choice))
    assert (len(data.users), len(data.interactions)) == (users, interactions)
    assert any("dropped" in note or "by id alone" in note for note in data.notes)


def test_keys_and_features_that_are_not_used_are_noted(tmp_path):
    content = document()
    content["interactions"][0]["sesion"] = 5
    content["user_data"][0]["categorical"]["empty"] = None
    notes = " ".join(read(tmp_path, content).notes)
    assert "'sesion'" in notes and "'categorical.empty'" in notes


JUNK = st.sampled_from(
    [
        None,
        0,
        1,
        -3,
        2.5,
        True,
        "x",
        "",
        [],
        ["q", 1],
        {},
        {"k": "v"},
        {"k": [1]},
        10**30,
        [None],
        [[1]],
        "2024-01-01",
        1.0,
        10**400,
        -(2**63),
        2**63,
        2**64,
        1e308,
        -0.0,
        1e11,
        -62135596801,
        "\ud800",
        {"\ud800": 1},
        {"a\n": "x"},
        {"": 1},
        "a\x00",
        [[[[1]]]],
        [[[[[1]]]]],
        {"a": {"b": {"c": {"d": 1}}}},
        {"a": {"b": {"c": {"d": {"e": 1}}}}},
        "2024-02-30",
        "20240517T1230",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59Z",
        "2024-05-17\n",
        "12:30:00",
        {"history": {"a": 1}},
    ]
)
PATHS = [
    ("user_data",), ("user_data", 0), ("user_data", 0, "user_id"), ("user_data", 0, "categorical"),
    ("user_data", 0, "categorical", "job"), ("user_data", 0, "continuous", "age"), ("user_data", 0, "text", "bio"),
    ("user_data", 1, "temporal", "spend"), ("user_data", 1, "other"), ("item_data", 0, "audio"),
    ("item_data", 1, "image", "front"), ("item_data", 1, "item_id"), ("interactions", 0),
    ("interactions", 1, "label"), ("interactions", 0, "rating"), ("interactions", 0, "interaction_type"),
    ("interactions", 0, "timestamp"), ("interactions", 1, "context"), ("extra",), ("user_data", 0, "history"),
    ("user_data", 0, "a.b"), ("user_data", 0, ""), ("item_data", 1, "user_id"), ("user_data", 0, "text", "a\x1f"),
    ("item_data", 0, "audio", "\udc00"), ("interactions", 0, "unused"), ("interactions", 1, "context", ""),
    ("interactions", 1, "context", "device"), ("interactions", 0, "weight"),
]  # fmt: skip
SEMANTIC = {"unknown id", "duplicate id", "mixed id types", "mixed values"}
"""What JSON Schema cannot say."""


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PATHS), value=JUNK)
def test_the_reader_accepts_exactly_what_the_published_schema_accepts(tmp_path_factory, path, value):
    content = document()
    place = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    valid = VALIDATOR.is_valid(content)
    try:
        read(tmp_path_factory.mktemp("d"), content)
        kinds = set()
    except DataError as error:
        kinds = set(error.counts)
    if not valid:
        assert kinds, "jsonschema refuses it, the reader took it"
    else:
        assert kinds <= SEMANTIC, f"jsonschema takes it, the reader found {kinds}"


def small():
    return document(
        user_data=[
            {"user_id": 1, "categorical": {"job": "nurse"}, "continuous": {"age": 30}},
            {"user_id": 2, "continuous": {"age": 41}},
        ],
        item_data=[
            {"item_id": "x", "categorical": {"tags": ["a", "b"]}, "text": {"title": "One"}},
            {"item_id": "007", "text": {"title": "Bond"}},
        ],
        interactions=[
            {"user_id": 1, "item_id": "x", "timestamp": 1704067200, "rating": 3.0},
            {"user_id": 2, "item_id": "007", "timestamp": 1704153600},
        ],
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "pandas", "polars", "arrow"])
def test_every_format_gives_the_same_dataset(tmp_path, kind):
    wanted = read(tmp_path, small())
    tables = {"users": wanted.users, "items": wanted.items, "interactions": wanted.interactions}
    if kind == "jsonl":
        for name, part in (("users", "user_data"), ("items", "item_data"), ("interactions", "interactions")):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, small()[part])))
    elif kind == "csv":
        items = wanted.items.drop_columns(["categorical.tags"]).append_column(
            "categorical.tags[]", pa.array(["a|b", None])
        )
        for name, table in {**tables, "items": items}.items():
            pyarrow.csv.write_csv(table, tmp_path / f"{name}.csv")
    elif kind == "parquet":
        for name, table in tables.items():
            pq.write_table(table, tmp_path / f"{name}.parquet")
    if kind in ("jsonl", "csv", "parquet"):
        found = Dataset.read(tmp_path)
    elif kind == "pandas":
        found = Dataset.from_tables(*(pd.DataFrame(table.to_pylist()) for table in tables.values()))
    elif kind == "polars":
        found = Dataset.from_tables(*(polars.from_arrow(table) for table in tables.values()))
    else:
        found = Dataset.from_tables(*tables.values())
    for name, table in tables.items():
        other = getattr(found, name)
        assert set(other.column_names) == set(table.column_names)
        assert other.select(table.column_names).to_pylist() == table.to_pylist()


def test_faults_in_data_frames_are_reported_by_kind(tmp_path):
    users = pd.DataFrame({"user_id": ["a", "a"], "text.bio": ["x", None], "shoe": [1, 2]})
    items = pd.DataFrame({"item_id": ["x"], "continuous.price": ["cheap"]})
    interactions = pd.DataFrame({"user_id": ["a", "q"], "item_id": ["x", "x"], "timestamp": ["2024-01-01", "soon"]})
    with pytest.raises(DataError) as error:
        Dataset.from_tables(users, items, interactions)
    assert set(error.value.counts) == {"duplicate id", "bad value", "unknown id", "bad timestamp"}


def test_writing_and_reading_again_changes_nothing(tmp_path):
    first = read(tmp_path, document())
    write_json(first, tmp_path / "again.json")
    second = Dataset.read(tmp_path / "again.json")
    for part in ("users", "items", "interactions"):
        assert getattr(first, part).equals(getattr(second, part))


def test_the_fewest_interactions_are_applied_until_every_user_and_item_has_enough(tmp_path):
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "x"), ("c", "z"), ("d", "z")]
    content = document(
        user_data=[{"user_id": u} for u in "abcd"],
        item_data=[{"item_id": i} for i in "xyz"],
        interactions=[{"user_id": u, "item_id": i} for u, i in rows],
    )
    data = read(tmp_path, content, DataConfig(min_user_interactions=2, min_item_interactions=2))
    assert data.users["user_id"].to_pylist() == ["a", "b"]
    assert data.items["item_id"].to_pylist() == ["x", "y"]
    assert len(data.interactions) == 4 and "3 interactions were dropped" in data.notes[-1]
    few = read(tmp_path, content, DataConfig(max_users=2))
    assert len(few.interactions) == 4 and "past the row limits" in few.notes[-1]
    with pytest.raises(DataError, match="leave no interaction"):
        read(tmp_path, content, DataConfig(min_user_interactions=9))


@pytest.mark.parametrize(
    ("limits", "users", "items", "pairs"),
    [
        ({"max_items": 2}, "abcd", "xy", ["ax", "ay", "bx", "by", "cx"]),
        ({"max_users": 3, "max_items": 1}, "abc", "x", ["ax", "bx", "cx"]),
        ({"max_interactions": 3}, "abcd", "xyz", ["ax", "ay", "bx"]),
        ({"max_interactions": 3, "max_items": 1}, "abcd", "x", ["ax", "bx", "cx"]),
        ({"max_interactions": 5, "min_item_interactions": 2}, "abcd", "xy", ["ax", "ay", "bx", "by", "cx"]),
        (
            {"max_interactions": 7, "max_users": 4, "max_items": 3},
            "abcd",
            "xyz",
            ["ax", "ay", "bx", "by", "cx", "cz", "dz"],
        ),
    ],
)
def test_row_limits_keep_the_first_rows(tmp_path, limits, users, items, pairs):
    rows = ["ax", "ay", "bx", "by", "cx", "cz", "dz"]
    content = document(
        user_data=[{"user_id": user} for user in "abcd"],
        item_data=[{"item_id": item} for item in "xyz"],
        interactions=[{"user_id": user, "item_id": item} for user, item in rows],
    )
    data = read(tmp_path, content, DataConfig(**limits))
    assert "".join(data.users["user_id"].to_pylist()) == users
    assert "".join(data.items["item_id"].to_pylist()) == items
    assert ["".join(row.values()) for row in data.interactions.to_pylist()] == pairs
    assert bool(data.notes) == (len(pairs) < len(rows))


def test_the_first_interactions_are_counted_after_the_limits_of_users_and_items(tmp_path):
    content = document(
        interactions=[{"user_id": user, "item_id": item} for user, item in ("by", "ax", "bx", "ay", "ax")]
    )
    data = read(tmp_path, content, DataConfig(max_items=1, max_interactions=2))
    assert data.interactions["user_id"].to_pylist() == ["a", "b"]
    assert "2 interactions were dropped: their user or item is past the row limits." in data.notes
    assert "Only the first 2 interactions are kept (data.max_interactions)." in data.notes


def test_a_request_may_be_one_record_a_list_or_a_document(tmp_path):
    record = {"user_id": "q", "temporal": {"spend": [3]}}
    for source in (record, [record], {"user_data": [record]}):
        made = read_partial(source, DataConfig(), {"user.spend": "numbers"})
        assert made.users.to_pylist() == [{"user_id": "q", "temporal.spend": [3.0]}]
    with pytest.raises(DataError, match="Did you mean 'user_data'"):
        read_partial({"user_dat": [record], "item_data": []}, DataConfig(), {})


IDS = [st.lists(st.integers(-9, 9)), st.lists(st.text("abé\U0001f600", max_size=2))]


@given(st.one_of(*(st.tuples(ids, ids) for ids in IDS)), st.booleans())
@settings(deadline=None)
def test_bisection_and_the_hash_table_find_ids_at_the_same_rows(ids, ascending):
    asked, known = ids[0], list(dict.fromkeys(ids[1]))
    known = sorted(known) if ascending else known
    kind = pa.string() if any(isinstance(one, str) for one in asked + known) else pa.int64()
    among, expected = pa.array(known, kind), [known.index(one) if one in known else -1 for one in asked]
    assert rows_of(pa.array(asked, kind), among).tolist() == expected
    many = FEW + 1  # found by a hash table
    assert rows_of(pa.array(asked * many, kind), among).tolist() == expected * many
