"""Data in every container: the same dataset, every Arrow type, and faults named by line and value."""

import datetime
import decimal
import gzip
import io
import json
import sys
import zipfile

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from anyrec.cli.app import app
from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.formats.decode import keys_in_text, keys_in_text_exactly, keys_of

USERS, ITEMS = "user_id\nu1\nu2\n", "item_id\n7\n8\n"
INTERACTIONS = "user_id,item_id\nu1,7\nu2,8\n"


def folder(path, **files):
    """A folder of users, items and interactions, of which some are given: `users_csv="..."` writes users.csv."""
    parts = {"users_csv": USERS, "items_csv": ITEMS, "interactions_csv": INTERACTIONS}
    for name, content in {**parts, **files}.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (path / name.replace("_", ".")).write_bytes(data)
    for name in files:
        if not name.endswith("_csv"):
            (path / f"{name.split('_')[0]}.csv").unlink()
    return path


def faults_of(path, options=None):
    with pytest.raises(DataError) as error:
        Dataset.read(path, options)
    return str(error.value)


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


# one dataset, any container

VALUES = {
    "categorical.job": ["nurse", None, "smith"],
    "categorical.level": ["2", "3", None],
    "continuous.age": [31.0, None, 2.5],
    "text.bio": ["sails; small, boats", 'says "hi"\nand leaves', None],
    "temporal.at": [[datetime.datetime(2024, 5, 1, 8, tzinfo=datetime.timezone.utc)], None, None],
}


def example(users, items):
    rows = len(users)
    made = pa.table({"user_id": users, **{name: (values * rows)[:rows] for name, values in VALUES.items()}})
    time = pa.array([1_700_000_000 + n for n in range(rows)], pa.timestamp("s", "UTC"))
    interactions = {
        "user_id": users,
        "item_id": items * rows,
        "timestamp": time,
        "rating": [1.0 + n for n in range(rows)],
    }
    return {
        "users": made,
        "items": pa.table({"item_id": items, "text.title": ["One"]}),
        "interactions": pa.table({**interactions, "context.device": ["tv"] * rows}),
    }


def flat_rows(table):
    rows = table.to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, datetime.datetime):
                row[name] = value.isoformat()
            if isinstance(value, list):
                row[name] = [time.isoformat() for time in value]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def nested(row):
    record = {}
    for name, value in row.items():
        group, dot, feature = name.partition(".")
        if dot:
            record.setdefault(group, {})[feature] = value
        else:
            record[name] = value
    return record


def written(path, tables, kind):
    """The tables as `kind`, read."""
    flat = {part: flat_rows(table) for part, table in tables.items()}
    if kind == "json":
        keys = {"users": "user_data", "items": "item_data", "interactions": "interactions"}
        (path / "d.json").write_text(json.dumps({keys[part]: list(map(nested, rows)) for part, rows in flat.items()}))
        return Dataset.read(path / "d.json")
    frames = {part: pd.DataFrame(table.to_pylist(), columns=table.column_names) for part, table in tables.items()}
    if kind == "pandas":
        return Dataset.from_tables(*frames.values())
    if kind == "polars":
        return Dataset.from_tables(*map(polars.from_arrow, tables.values()))
    if kind == "arrow":
        return Dataset.from_tables(*tables.values())
    for part, table in tables.items():
        if kind == "csv":
            single = pd.DataFrame(
                [{n: v[0] if isinstance(v, list) else v for n, v in row.items()} for row in flat[part]]
            )
            single.to_csv(path / f"{part}.csv", index=False)
        elif kind == "csv.gz":
            single = pd.DataFrame(
                [{n: v[0] if isinstance(v, list) else v for n, v in row.items()} for row in flat[part]]
            )
            single.to_csv(path / f"{part}.csv.gz", index=False, sep=";")
        elif kind == "parquet":
            pq.write_table(table, path / f"{part}.parquet")
        elif kind == "jsonl":
            (path / f"{part}.jsonl").write_text("\r\n".join(map(json.dumps, flat[part])))
        else:
            (path / f"{part}.ndjson").write_text("\n\n".join(json.dumps(nested(row)) for row in flat[part]))
    return Dataset.read(path)


KINDS = ["json", "jsonl", "ndjson", "csv", "csv.gz", "parquet", "pandas", "polars", "arrow"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(number=st.booleans(), rows=st.integers(3, 5))
def test_the_same_data_in_any_container_are_the_same_dataset(tmp_path_factory, kind, number, rows):
    users = list(range(rows)) if number else [f"0{n}" for n in range(rows)]
    tables = example(users, [10**12 if number else "i,1"])
    found = written(tmp_path_factory.mktemp("d"), tables, kind)
    wanted = written(tmp_path_factory.mktemp("d"), tables, "json")
    for part in tables:
        one, other = getattr(found, part), getattr(wanted, part)
        assert sorted(one.column_names) == sorted(other.column_names)
        assert one.select(other.column_names).to_pylist() == other.to_pylist()
        assert one.select(other.column_names).schema.types == other.schema.types
    assert found.roles == wanted.roles and found.fingerprint() == wanted.fingerprint()


# times


def times_in(path, kind, values):
    """Data whose timestamps and whose temporal feature `seen` are `values`, read from a container."""
    frame = pd.DataFrame({"user_id": ["u1", "u2"], "temporal.seen": [list(values), None]})
    rows = {"user_id": ["u1"] * len(values), "item_id": ["i1"] * len(values), "timestamp": list(values)}
    items = pd.DataFrame({"item_id": ["i1"]})
    if kind == "pandas":
        return Dataset.from_tables(frame, items, pd.DataFrame(rows))
    if kind == "json":
        users = [{"user_id": "u1", "temporal": {"seen": list(values)}}, {"user_id": "u2"}]
        interactions = [{"user_id": "u1", "item_id": "i1", "timestamp": value} for value in values]
        content = {"user_data": users, "item_data": [{"item_id": "i1"}], "interactions": interactions}
        (path / "d.json").write_text(json.dumps(content))
        return Dataset.read(path / "d.json")
    if kind == "csv":
        text = "|".join(map(str, values))
        (path / "users.csv").write_text(f"user_id,temporal.seen[]\nu1,{text}\nu2,\n")
        (path / "items.csv").write_text("item_id\ni1\n")
        (path / "interactions.csv").write_text(pd.DataFrame(rows).to_csv(index=False))
        return Dataset.read(path)
    typed = values if len(set(map(type, values))) == 1 else list(map(str, values))
    tables = [
        pa.table({"user_id": ["u1", "u2"], "temporal.seen": [typed, None]}),
        pa.table({"item_id": ["i1"]}),
        pa.table({**rows, "timestamp": typed}),
    ]
    if kind == "parquet":
        for name, table in zip(("users", "items", "interactions"), tables, strict=True):
            pq.write_table(table, path / f"{name}.parquet")
        return Dataset.read(path)
    return Dataset.from_tables(*(map(polars.from_arrow, tables) if kind == "polars" else tables))


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "pandas", "polars", "arrow"])
@pytest.mark.parametrize(
    "values",
    [
        ["2024-05-17T12:30:00Z", "2024-05-18", "2024-05-19T02:00:00+02:00"],
        [1715949000, 1715990400, 1716076800],
        [1715949000, "2024-05-18", "2024-05-19T02:00:00+02:00"],
        ["1715949000", "2024-05-18", "1716076800.0"],
    ],
    ids=["ISO", "epoch", "mixed", "epoch as text"],
)
def test_iso_and_epoch_times_may_be_mixed_in_every_container(tmp_path, kind, values):
    found = times_in(tmp_path, kind, values)
    wanted = [datetime.datetime.fromtimestamp(s, datetime.timezone.utc) for s in (1715949000, 1715990400, 1716076800)]
    assert found.interactions["timestamp"].to_pylist() == wanted
    assert found.users["temporal.seen"].to_pylist() == [wanted, None] and found.roles == {"user.seen": "timestamps"}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert found.fingerprint() == times_in(plain, "json", [time.isoformat() for time in wanted]).fingerprint()


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "pandas", "polars", "arrow"])
@pytest.mark.parametrize("values", [[20240517, 20240519], ["20240517", "20240519"]], ids=["numbers", "texts"])
def test_numbers_that_all_are_dates_are_dates_in_every_container(tmp_path, kind, values):
    found = times_in(tmp_path, kind, values)
    assert [str(time.date()) for time in found.interactions["timestamp"].to_pylist()] == ["2024-05-17", "2024-05-19"]
    assert found.roles == {"user.seen": "timestamps"}


def test_numbers_that_are_not_all_dates_are_seconds(tmp_path):
    found = times_in(tmp_path, "json", [20240517, 20241317])
    assert {time.year for time in found.interactions["timestamp"].to_pylist()} == {1970}
    assert found.roles == {"user.seen": "numbers"}


# Arrow types

N = 2
COLUMNS = [
    pa.nulls(N), pa.array([b"\xff\xfe"] * N), pa.array([b"u1"] * N, pa.binary(2)),
    pa.array([decimal.Decimal("1.5")] * N), pa.array([decimal.Decimal(10) ** 30] * N, pa.decimal128(38, 0)),
    pa.array([datetime.date(2024, 5, 1), None]), pa.array([datetime.time(3, 4)] * N),
    pa.array([datetime.timedelta(days=3)] * N), pa.array([2**62, 0], pa.timestamp("s")),
    pa.array([1715949000 * 10**9, None], pa.timestamp("ns", "Europe/Paris")), pa.array([2**64 - 1, 1], pa.uint64()),
    pa.array(np.array([1.5] * N, np.float16)), pa.array([float("nan"), 1.0]), pa.array([float("inf"), 1.0]),
    pa.array([True] * N), pa.array(["a", None]).dictionary_encode(), pa.array([1, 2]).dictionary_encode(),
    pa.array(["2024-05-01T00:00:00Z"] * N, pa.large_string()), pa.array(["a"] * N, pa.string_view()),
    pa.array([b"a"] * N, pa.binary_view()), pa.array([["a"], None], pa.large_list(pa.string())),
    pa.array([["a"], None], pa.list_view(pa.string())), pa.array([["a", None]] * N), pa.array([[["a"]]] * N),
    pa.array([[]] * N), pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)), pa.array([{"a": 1}, None]),
    pa.array([{}] * N), pa.array([[("k", 1)]] * N, pa.map_(pa.string(), pa.int64())), pa.array([[{"a": 1}]] * N),
    pc.run_end_encode(pa.array([1, 1])), pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()),
    pa.array([[datetime.date(2024, 1, 1)], None]),
    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * N, pa.binary(16))),
]  # fmt: skip
PLACES = ["user_id", "text.a", "image.a", "categorical.a", "continuous.a", "temporal.a", "audio.a", "other"]
FIELDS = ["user_id", "item_id", "interaction_type", "timestamp", "weight", "rating", "label", "context.a"]
KNOWN = {"bool", "int64", "int8", "double", "string", "timestamp[us, tz=UTC]"}


def leaves(kind):
    if pa.types.is_list(kind):
        return leaves(kind.value_type)
    if pa.types.is_struct(kind):
        return set().union(*(leaves(field.type) for field in kind))
    return {str(kind)}


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type)[:30])
@pytest.mark.parametrize("name", [*PLACES, *(f"interactions {name}" for name in FIELDS)])
def test_every_arrow_type_in_every_place_is_read_or_refused_by_its_name(column, name):
    users = {"user_id": pa.array(["a", "b"])}
    interactions = {"user_id": pa.array(["a", "b"]), "item_id": pa.array([1, 1])}
    target = interactions if name.startswith("interactions ") else users
    target[name.removeprefix("interactions ")] = column
    try:
        made = Dataset.from_tables(pa.table(users), pa.table({"item_id": [1]}), pa.table(interactions))
    except DataError as error:
        assert name.split()[-1] in str(error) or "no record in" in str(error)
        return
    for table in (made.users, made.interactions):
        assert set().union(*(leaves(kind) for kind in table.schema.types)) <= KNOWN


def test_ids_of_unsigned_columns_past_64_bits_are_refused_as_in_json(tmp_path):
    ids = pa.array([10254939386542155531, 5], pa.uint64())
    pq.write_table(pa.table({"user_id": ids}), tmp_path / "users.parquet")
    pq.write_table(pa.table({"user_id": ids, "item_id": [7, 8]}), tmp_path / "interactions.parquet")
    (tmp_path / "items.csv").write_text(ITEMS)
    text = faults_of(tmp_path)
    assert (
        "users.parquet row 1, column 'user_id': the id 10254939386542155531 is past 64 bits. Write it as a text."
        in text
    )


@pytest.mark.parametrize("gap", ["", "2024-02-02"])
def test_dates_are_timestamps_in_every_container(tmp_path, gap):
    folder(tmp_path, items_csv=f"item_id,temporal.released\n7,2024-01-01\n8,{gap}\n")
    assert Dataset.read(tmp_path).roles == {"item.released": "timestamps"}
    dates = [datetime.date(2024, 1, 1), datetime.date.fromisoformat(gap) if gap else None]
    users, interactions = pd.DataFrame({"user_id": [1]}), pd.DataFrame({"user_id": [1], "item_id": [7]})
    for items in (
        pd.DataFrame({"item_id": [7, 8], "temporal.released": dates}),
        pa.table({"item_id": [7, 8], "temporal.released": dates}),
    ):
        made = Dataset.from_tables(users, items, interactions)
        assert made.roles == {"item.released": "timestamps"}
        assert made.items["temporal.released"][0].as_py()[0].date() == dates[0]


def test_times_of_day_are_seconds_since_midnight(tmp_path):
    folder(tmp_path, items_csv="item_id,temporal.at\n7,12:30:00\n8,\n")
    assert Dataset.read(tmp_path).items["temporal.at"].to_pylist() == [[45_000.0], None]


def test_mixed_object_columns_of_pandas_are_data_errors():
    users, items = pd.DataFrame({"user_id": [1, 2]}), pd.DataFrame({"item_id": [1]})
    interactions = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 1]})
    with pytest.raises(DataError, match="users row 2, column 'user_id': most ids here are texts; found 1"):
        Dataset.from_tables(users.assign(user_id=["a", 1]), items, interactions)
    with pytest.raises(DataError, match=r"users row 2, column 'categorical\.c': this column mixes texts and numbers"):
        Dataset.from_tables(users.assign(**{"categorical.c": ["a", 1]}), items, interactions)
    with pytest.raises(DataError, match="found 'x'"):
        Dataset.from_tables(users.assign(**{"continuous.c": [1, "x"]}), items, interactions)
    doubled = pd.concat([users, pd.DataFrame([["x", "y"]] * 2, columns=["categorical.a"] * 2)], axis=1)
    with pytest.raises(DataError, match=r"users: categorical\.a: this column is there twice"):
        Dataset.from_tables(doubled, items, interactions)
    assert str(Dataset.from_tables(users, items, interactions, root="pictures").root) == "pictures"


# CSV files


@pytest.mark.parametrize("name", ["user_id", "item_id", "timestamp", "rating", "interaction_type"])
def test_a_header_that_makes_a_list_of_a_single_value_is_refused(name, tmp_path):
    header, cells = ["user_id", "item_id", "timestamp", "rating", "interaction_type"], ["1", "7", "5", "4", "buy"]
    header[header.index(name)] += "[]"
    folder(tmp_path, interactions_csv=",".join(header) + "\n" + ",".join(cells) + "\n")
    assert name in faults_of(tmp_path)


def test_values_that_are_not_numbers_are_named_by_line_and_value(tmp_path):
    folder(tmp_path, items_csv='item_id,text.t,continuous.price\n7,"two\nlines",3.5\n8,x,"12,90"\n')
    assert "items.csv line 4: '12,90' is not a number; the column 'continuous.price' holds numbers." in faults_of(
        tmp_path
    )


def test_a_doubled_column_is_named(tmp_path):
    folder(tmp_path, users_csv="user_id,categorical.a,categorical.a\nu1,x,y\nu2,x,z\n")
    assert "users.csv: categorical.a: this column is there twice." in faults_of(tmp_path)


@pytest.mark.parametrize(("separator", "name"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_other_separators_are_read_and_named(tmp_path, separator, name):
    folder(tmp_path, users_csv=f"user_id{separator}categorical.x\nu1{separator}a\nu2{separator}b\n")
    made = Dataset.read(tmp_path)
    assert made.users["categorical.x"].to_pylist() == ["a", "b"]
    assert any(f"users.csv: the file seems to be separated by {name}" in note for note in made.notes)


def test_rows_with_too_many_cells_are_named_by_line(tmp_path):
    folder(tmp_path, users_csv="user_id\nu1\nu2,x\n")
    assert "users.csv line 3: this row has 2 cells, the header 1." in faults_of(tmp_path)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_end_is_read(tmp_path, ending):
    folder(tmp_path, users_csv=f"user_id,text.t{ending}u1,a{ending}u2,b{ending}")
    assert Dataset.read(tmp_path).users["text.t"].to_pylist() == ["a", "b"]


def test_ids_of_csv_files_take_the_type_that_other_files_give_them(tmp_path):
    folder(tmp_path, items_jsonl='{"item_id": "7"}\n{"item_id": "8"}\n')
    assert Dataset.read(tmp_path).interactions["item_id"].to_pylist() == ["7", "8"]


def test_numerals_of_a_csv_list_are_item_ids_if_all_of_them_are(tmp_path):
    users = "user_id,temporal.had[]\nu1,7|8\nu2,\n"
    folder(tmp_path, users_csv=users)
    made = Dataset.read(tmp_path)
    assert made.roles == {"user.had": "items"} and made.users["temporal.had"].to_pylist() == [[7, 8], None]
    folder(tmp_path, users_csv=users, items_csv="item_id\n7\n8\n009\n")
    assert Dataset.read(tmp_path).users["temporal.had"].to_pylist() == [["7", "8"], None]


# containers


def document():
    users, items = [{"user_id": "u1"}, {"user_id": "u2"}], [{"item_id": 7}]
    return {"user_data": users, "item_data": items, "interactions": [{"user_id": "u1", "item_id": 7}]}


def archive():
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr(zipfile.ZipInfo("a"), "b")
    return sink.getvalue()


TEXT = json.dumps(document())


@pytest.mark.parametrize(
    "data",
    [TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), gzip.compress(TEXT.encode(), mtime=0)],
    ids=["plain", "byte order mark", "gzip"],
)
def test_json_is_read_plain_packed_or_with_a_byte_order_mark(tmp_path, data, monkeypatch):
    (tmp_path / "d.json").write_bytes(data)
    assert len(Dataset.read(tmp_path / "d.json").users) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert len(Dataset.read("-").users) == 2


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("one.jsonl", b'{"user_id":1}\n', "a folder of users, items and interactions is wanted"),
        ("one.json", b'{"user_id":1}\n{"user_id":2}\n', "a folder of users, items and interactions is wanted"),
        ("one.csv", b"user_id\n", "a folder of users, items and interactions is wanted"),
        ("one.parquet", b"PAR1", "a folder of users, items and interactions is wanted"),
        ("d.json", TEXT.encode("utf-16"), "it looks like UTF-16"),
        ("d.json", TEXT.encode("utf-16-le"), "it looks like UTF-16"),
        ("d.json", TEXT.encode("utf-32"), "it looks like UTF-32"),
        ("d.json", TEXT.replace("u1", "ü").encode("latin-1") + "é".encode("latin-1"), "it looks like Latin-1"),
        ("d.json", archive(), "a zip archive or a spreadsheet"),
        ("d.json", b"PAR1....", "a Parquet file"),
        ("d.json", b"users.csv".ljust(257, b"\0") + b"ustar", "a tar archive"),
        ("d.json", b"\x80\x04\x95pickled", "holds binary data"),
        ("d.json", gzip.compress(gzip.compress(TEXT.encode(), mtime=0), mtime=0), "holds binary data"),
        ("d.json", b"\x1f\x8b\x08broken", "cannot be unpacked"),
        ("d.json", b"9" * 5000, "more than 4,300 digits"),
        ("d.json", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_not_a_dataset_is_refused_with_its_format(tmp_path, name, data, what):
    (tmp_path / name).write_bytes(data)
    if name == "d.json" and what.endswith("Latin-1"):
        (tmp_path / name).write_bytes('{"user_data": "Müller"}'.encode("latin-1"))
    assert what in faults_of(tmp_path / name)


def test_tables_are_read_packed_and_with_a_byte_order_mark(tmp_path):
    folder(
        tmp_path,
        users_csv_gz=gzip.compress(USERS.encode()),
        items_jsonl=b'\xef\xbb\xbf{"item_id": 7}\n\n{"item_id": 8}',
    )
    assert len(Dataset.read(tmp_path).users) == 2


def test_the_encoding_of_a_csv_file_is_named_with_the_line(tmp_path):
    folder(tmp_path, users_csv="user_id,text.name\nu1,x\nu2,Müller\n".encode("latin-1"))
    text = faults_of(tmp_path)
    assert "users.csv line 3, byte 5: this is not UTF-8 text: it looks like Latin-1" in text and "UTF-8" in text


def test_a_folder_names_the_part_that_it_lacks(tmp_path):
    folder(tmp_path, users_csv=None)
    (tmp_path / "users.csv").unlink(missing_ok=True)
    assert "this folder has no users; found items and interactions." in faults_of(tmp_path)
    made = Dataset.read(tmp_path, DataConfig(unknown_ids="keep"))
    assert made.users["user_id"].to_pylist() == ["u1", "u2"]
    (tmp_path / "items.csv").unlink()
    assert len(Dataset.read(tmp_path, DataConfig(unknown_ids="keep")).items) == 2


# doubled keys, missing ids


def test_doubled_keys_are_faults_with_a_pointer(tmp_path):
    cases = {
        '{"user_id": "u1", "text": {"a": "x"}, "text": {"a": "y"}}': "/user_data/0: the key 'text'",
        '{"user_id": "u1", "text": {"a": "x", "a" : "y"}}': "/user_data/0/text: the key 'a'",
        '{"user_id": "u1", "audio": {"x": {"q": 1, "q": 2}}}': "/user_data/0/audio/x: the key 'q'",
    }
    for record, fault in cases.items():
        text = json.dumps(document()).replace('{"user_id": "u1"}', record, 1)
        (tmp_path / "d.json").write_text(text)
        assert fault in faults_of(tmp_path / "d.json")
    text = TEXT.replace('"item_id": 7}]}', '"item_id": 7, "item_id": 7}]}')
    (tmp_path / "d.json").write_text(text)
    assert "/interactions/0: the key 'item_id'" in faults_of(tmp_path / "d.json")
    folder(tmp_path, users_jsonl='{"user_id": "u1"}\n{"user_id": "u2", "user_id": "u3"}\n')
    assert "users.jsonl line 2, /: the key 'user_id' stands here more than once" in faults_of(tmp_path)


JSON = st.recursive(
    st.none() | st.integers(-5, 5) | st.text('a":\\ ,{}\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a":\\ ,', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : "), (",\n", "\t :")]))
def test_keys_are_counted_in_text_as_in_values(value, separators):
    data = json.dumps(value, separators=separators).encode()
    assert keys_in_text_exactly(data) == keys_of([value]) <= keys_in_text(data)


def test_interactions_without_an_id_are_dropped_and_counted_on_request(tmp_path):
    folder(tmp_path, interactions_csv="user_id,item_id\nu1,7\n,8\nu2,\n")
    assert "interactions.csv line 3, column 'user_id': the id is missing" in faults_of(tmp_path)
    made = Dataset.read(tmp_path, DataConfig(unknown_ids="drop"))
    assert len(made.interactions) == 1
    assert {
        "1 interactions were dropped: they have no user_id.",
        "1 interactions were dropped: they have no item_id.",
    } <= set(made.notes)
    rows = [
        {"user_id": "u1", "item_id": 7},
        {"user_id": None, "item_id": 7},
        {"item_id": 7},
        {"user_id": "", "item_id": 7},
    ]
    (tmp_path / "d.json").write_text(json.dumps({**document(), "interactions": rows}))
    assert len(Dataset.read(tmp_path / "d.json", DataConfig(unknown_ids="drop")).interactions) == 1
    (tmp_path / "interactions.csv").unlink()
    table = pa.table({"user_id": ["u1", "", None], "item_id": [7, 7, 7]})
    pq.write_table(table, tmp_path / "interactions.parquet")
    assert len(Dataset.read(tmp_path, DataConfig(unknown_ids="drop")).interactions) == 1


def test_interactions_alone_are_a_dataset_if_unknown_ids_are_kept(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"interactions": [{"user_id": "u1", "item_id": 7}]}))
    assert "/user_data: expected a list; it is missing." in faults_of(tmp_path / "d.json")
    assert len(Dataset.read(tmp_path / "d.json", DataConfig(unknown_ids="keep")).items) == 1


@pytest.mark.parametrize("end", ["", "9,c\n", '9,"c"\n'])
def test_a_quoted_cell_that_is_not_closed_is_a_fault_at_its_line(tmp_path, end):
    folder(tmp_path, items_csv='item_id,text.t\n7,x\n8,"a\n10,b\n' + end)
    assert "items.csv line 3: a cell that begins with a quote in this row does not end with one." in faults_of(tmp_path)


def test_quotes_and_line_ends_inside_closed_cells_are_read(tmp_path):
    folder(tmp_path, items_csv='item_id,text.t\r\n7,"a\r\nb ""c"" d"\r\n\r\n8,5" disk\r\n')
    assert Dataset.read(tmp_path, DataConfig()).items.column("text.t").to_pylist() == ['a\r\nb "c" d', '5" disk']


def test_a_feature_may_be_flat_in_some_lines_and_nested_in_others(tmp_path):
    lines = '{"item_id": 7, "continuous.p": 1}\n{"item_id": 8, "continuous": {"p": 2}}\n'
    folder(tmp_path, items_jsonl=lines)
    assert Dataset.read(tmp_path, DataConfig()).items.column("continuous.p").to_pylist() == [1, 2]
    folder(tmp_path, items_jsonl=lines + '{"item_id": 9, "continuous.p": 1, "continuous": {"p": 2}}\n')
    assert "items.jsonl line 3, column 'continuous.p': this feature is given twice." in faults_of(tmp_path)


@pytest.mark.parametrize("values", ["01/02/2024|", "Jan 2 2024|Jan 3 2024", "1|x|3"])
def test_temporal_values_that_are_neither_numbers_times_nor_items_are_noted(tmp_path, values):
    folder(tmp_path, items_csv=f"item_id,temporal.released[]\n7,{values}\n8,\n")
    notes = Dataset.read(tmp_path, DataConfig()).notes
    assert any("'item.released' has no effect" in note for note in notes)


def test_a_table_with_an_ending_that_is_not_read_is_named(tmp_path):
    folder(tmp_path, users_json="[]")
    assert "users.json cannot be read as a table of a folder." in faults_of(tmp_path)


# MovieLens, commands


def movielens(path):
    (path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,5,4.5,964982703\n2,5,3.0,964982704\n")
    (path / "movies.csv").write_text('movieId,title,genres\n5,"Kid, The (1921)",Comedy|Drama\n6,X,(no genres listed)\n')
    (path / "tags.csv").write_text("userId,movieId,tag,timestamp\n2,5,funny,1445714994\n")
    return path


def test_movielens_in_its_form_since_2015_is_read_and_converted(tmp_path):
    made = Dataset.read(movielens(tmp_path))
    assert made.items.to_pylist() == [
        {
            "item_id": 5,
            "text.title": "Kid, The (1921)",
            "categorical.genres": ["Comedy", "Drama"],
            "continuous.year": 1921.0,
        },
        {"item_id": 6, "text.title": "X", "categorical.genres": None, "continuous.year": None},
    ]
    assert made.interactions["rating"].to_pylist() == [4.5, 3.0] and any("tags.csv" in note for note in made.notes)
    code, output = run("convert", "movielens", tmp_path, tmp_path / "o.json")
    assert code == 0 and "2 users, 2 items, 2 interactions" in output
    assert Dataset.read(tmp_path / "o.json").interactions.to_pylist() == made.interactions.to_pylist()
    (tmp_path / "movies.csv").write_text("movieId\n5\n")
    assert "cannot be read as MovieLens" in faults_of(tmp_path)


def test_init_describe_doctor_and_validate_take_a_config_and_values(tmp_path):
    folder(tmp_path, users_csv=None)
    (tmp_path / "users.csv").unlink(missing_ok=True)
    (tmp_path / "keep.json").write_text('{"data": {"unknown_ids": "keep"}}')
    for command in ("init", "describe", "doctor", "validate"):
        for extra in (["--config", tmp_path / "keep.json"], ["--set", "data.unknown_ids=keep"]):
            assert run(command, tmp_path, *extra)[0] == 0
        assert run(command, tmp_path)[0] != 0
    assert '"unknown_ids": "keep"' in run("init", tmp_path, "--set", "data.unknown_ids=keep")[1]


def test_describe_counts_as_the_doctor_does_and_shows_types_ratings_and_times(tmp_path):
    users = [{"user_id": n, "categorical": {"group": "ab"[n % 2]} if n % 3 else {}} for n in range(30)]
    rows = [
        {
            "user_id": n % 30,
            "item_id": n % 7,
            "rating": n % 5,
            "timestamp": 1_700_000_000 + n,
            "interaction_type": "buy",
        }
        for n in range(600)
    ]
    items = [{"item_id": n} for n in range(9)]
    (tmp_path / "d.json").write_text(json.dumps({"user_data": users, "item_data": items, "interactions": rows}))
    text = run("describe", tmp_path / "d.json")[1]
    share = f"{len({(n % 30, n % 7) for n in range(600)}) / 270:.2%}"
    assert (
        f"{share} of all pairs" in text and f"{share} of all user-item pairs" in run("doctor", tmp_path / "d.json")[1]
    )
    for shown in (
        "66.7%    2 values",
        "buy (600)",
        "0 to 4, mean 2.00",
        "2023-11-14T22:13:20Z to 2023-11-14T22:23:19Z",
    ):
        assert shown in text


def test_the_doctor_reports_cells_that_look_like_lists(tmp_path):
    cells = '"[{""id"": 1}]","[\'Drama\', \'Comedy\']",Drama|Comedy,"{""a"": 1}"'
    folder(tmp_path, items_csv=f"item_id,categorical.a,categorical.b,categorical.c,text.d\n7,{cells}\n8,{cells}\n")
    text = run("doctor", tmp_path)[1]
    assert all(
        f"'{name}' look like {what}" in text
        for name, what in (
            ("categorical.a", "lists"),
            ("categorical.b", "lists"),
            ("categorical.c", "several values"),
            ("text.d", "objects"),
        )
    )


def test_markup_in_values_is_printed_literally(tmp_path):
    record = {"user_id": "[/]", "categorical": {"[/b]": "[red]x", ":smile:": "y"}, "image": {"[/i]": "[/].png"}}
    (tmp_path / "d.json").write_text(
        json.dumps({**document(), "user_data": [record], "interactions": [{"user_id": "[/]", "item_id": 7}]})
    )
    for command in ("validate", "describe", "doctor"):
        code, output = run(command, tmp_path / "d.json")
        assert code == 0, output
    assert "categorical.:smile:" in run("describe", tmp_path / "d.json")[1]
