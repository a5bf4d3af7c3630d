"""Known faulty inputs, read by `data.sources`: each is reported with its place, or read as the user means it."""

import datetime as dt
import random

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from small import call

from anyrec import Dataset
from anyrec.core.errors import AnyrecError, ConfigError, DataError

LOG = {"path": "log.csv", "columns": {"user": "user_id", "item": "item_id"}}
ROWS = "user,item\nu1,i1\nu2,i2\nu1,i2\n"


def read(folder, files=None, *, unknown_ids="keep", **sources):
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    parts = {part: table if isinstance(table, list) else [table] for part, table in sources.items()}
    options = {"unknown_ids": unknown_ids, "sources": {"root": str(folder), "interactions": [LOG], **parts}}
    return Dataset.from_sources({"data": options})


def items(columns, path="items.csv", **more):
    return {"path": path, "columns": {"id": "item_id", **columns}, **more}


def test_a_column_that_is_there_twice_is_named_if_it_is_used(tmp_path):
    files = {"log.csv": ROWS, "items.csv": "id,a,a,b\ni1,1,2,x\ni2,3,4,y\n"}
    with pytest.raises(ConfigError, match=r"items.csv has several columns 'a'"):
        read(tmp_path, files, items=items({"a": "categorical.a"}))
    assert read(tmp_path, items=items({"b": "categorical.b"})).items["categorical.b"].to_pylist() == ["x", "y"]


def test_ids_past_64_bits_are_faults(tmp_path):
    pyarrow.parquet.write_table(
        pa.table({"user": pa.array([2**63 + 1, 2], pa.uint64()), "item": [1, 2]}), tmp_path / "l.parquet"
    )
    with pytest.raises(DataError, match=r"the id 9223372036854775809 is past 64 bits. Write it as a text"):
        read(tmp_path, interactions={**LOG, "path": "l.parquet"})


@pytest.mark.parametrize("container", ["csv", "parquet", "pandas"])
def test_dates_with_gaps_are_times(tmp_path, container):
    days = [dt.date(2024, 1, 2), None]
    (tmp_path / "log.csv").write_text(ROWS)
    if container == "csv":
        (tmp_path / "items.csv").write_text("id,since\ni1,2024-01-02\ni2,\n")
        found = read(tmp_path, items=items({"since": "temporal.since"}))
    elif container == "parquet":
        pyarrow.parquet.write_table(pa.table({"id": ["i1", "i2"], "since": pa.array(days)}), tmp_path / "i.parquet")
        found = read(tmp_path, items=items({"since": "temporal.since"}, "i.parquet"))
    else:
        frame = pd.DataFrame({"id": ["i1", "i2"], "since": days})
        sources = {"root": str(tmp_path), "items": [items({"since": "temporal.since"}, "frame")], "interactions": [LOG]}
        found = Dataset.from_sources({"data": {"sources": sources}}, tables={"frame": frame})
    assert found.roles == {"item.since": "timestamps"}
    assert found.items["temporal.since"].to_pylist()[0] == [dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)]


def test_a_value_that_is_no_number_is_shown_with_its_line(tmp_path):
    files = {"log.csv": ROWS, "items.csv": 'id,price\ni1,5\ni2,"12,90"\n'}
    with pytest.raises(DataError, match=r"items.csv line 3: '12,90' is not a number"):
        read(tmp_path, files, items=items({"price": "continuous.price"}))


def test_objects_in_cells_are_faults_where_lists_of_values_are_declared(tmp_path):
    files = {"log.csv": ROWS, "items.csv": 'id,genres\ni1,"[{""id"": 12, ""name"": ""Adventure""}]"\ni2,"[]"\n'}
    with pytest.raises(DataError, match="genres"):
        read(tmp_path, files, items=items({"genres": {"to": "categorical.genres", "json_list": True}}))


def test_a_key_that_is_there_twice_in_a_line_is_a_fault(tmp_path):
    files = {"log.csv": ROWS, "items.jsonl": '{"id": "i1", "a": "x", "a": "y"}\n{"id": "i2", "a": "z"}\n'}
    with pytest.raises(DataError, match=r"items.jsonl row 1.*'a' stands here more than once"):
        read(tmp_path, files, items=items({"a": "categorical.a"}, "items.jsonl"))


def test_rows_without_a_user_are_left_out_and_counted_if_the_config_says_so(tmp_path):
    files = {"log.csv": "user,item\nu1,i1\n,i2\nNULL,i1\nu2,i2\n"}
    with pytest.raises(DataError, match=r"log.csv line 3, column 'user': the id is missing"):
        read(tmp_path, files, unknown_ids="error")
    found = read(tmp_path, unknown_ids="drop")
    assert len(found.interactions) == 2
    assert "2 interactions were dropped: they have no user_id." in found.notes


def test_interactions_alone_are_enough(tmp_path):
    found = read(tmp_path, {"log.csv": ROWS}, unknown_ids="error")
    assert found.users["user_id"].to_pylist() == ["u1", "u2"] and len(found.items) == 2


def test_one_table_given_as_data_points_to_init(tmp_path):
    (tmp_path / "log.csv").write_text(ROWS)
    code, _, err = call("validate", tmp_path / "log.csv")
    assert code == 2 and "anyrec init" in err


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl", "items.parquet"])
def test_damaged_tables_are_errors_and_never_tracebacks(tmp_path, name):
    """Bytes of small tables are changed, cut and doubled at random."""
    rng = random.Random(5)
    (tmp_path / "log.csv").write_text(ROWS)
    table = pa.table({"id": ["i1", "i2"], "a": ["x|y", None], "b": ["1,5", "2"], "c": ["2024-01-02", "3"]})
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(table, tmp_path / name)
    elif name.endswith("csv"):
        table.to_pandas().to_csv(tmp_path / name, index=False)
    else:
        (tmp_path / name).write_text("".join(f'{{"id": "i{n}", "a": "x|y", "b": "1,5", "c": 3}}\n' for n in (1, 2)))
    whole = (tmp_path / name).read_bytes()
    columns = {
        "a": {"to": "categorical.a", "split": "|"}, "b": {"to": "continuous.b", "decimal": ","}, "c": "text.c",
    }  # fmt: skip
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            change = rng.choice(["byte", "cut", "double"])
            if change == "byte":
                data[place] = rng.choice([0, 10, 34, 44, 92, 123, 125, 255, rng.randrange(256)])
            elif change == "cut":
                del data[place : place + rng.randint(1, 20)]
            else:
                data[place:place] = data[place : place + 10]
            if not data:
                break
        (tmp_path / name).write_bytes(bytes(data))
        try:
            read(tmp_path, items=items(columns, name))
        except AnyrecError as error:
            assert str(error)
