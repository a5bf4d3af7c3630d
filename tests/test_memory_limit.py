"""With arrays on disk (`data.memory_limit`) everything is the same as in memory, bit by bit."""

import json
import shutil
import weakref
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from anyrec import Dataset, Recommender
from anyrec.core import scratch as core_scratch
from anyrec.core import windows
from anyrec.core.config import DataConfig
from anyrec.core.errors import ConfigError, DataError, OutputError
from anyrec.core.load_config import load_config
from anyrec.core.ragged import Ragged
from anyrec.core.scratch import Scratch, free_memory
from anyrec.core.windows import SetPacker
from anyrec.data import histories, memory_limit, order
from anyrec.data.formats import json_lines, times
from anyrec.data.memory_limit import Room, limit_of
from anyrec.data.sources import csv_stream, json_stream
from anyrec.model import prepare_histories

FAST = {"training": {"epochs": 2, "device": "cpu"}, "blend": None}
CONFIGS = {
    "the sequence of the defaults": {"features": {"history": {"type": "history"}}, **FAST},
    "events of one time, last ones held out": {
        "features": {"history": {"type": "history", "same_time": "ordered", "use_kind": True, "use_gap": True}},
        "split": {"protocol": "leave_last_out"},
        **FAST,
    },
    "masked prediction": {"features": {"history": {"type": "history", "block": "bidirectional"}}, **FAST},
    "sets of items": {
        "features": {"history": {"type": "set"}},
        "training": {"epochs": 2, "refit": True},
        "blend": None,
    },
    "ids, ratings and a random split": {
        "features": {"history": None},
        "split": {"protocol": "random"},
        "data": {"min_rating": 2.5, "half_life_days": 30.0},
        **FAST,
    },
    "a blend": {"features": {"history": {"type": "history"}}, "training": {"epochs": 1}},
    "a classical model": {"model": {"type": "ease"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """5,000 interactions of 150 users and 60 items, in no order; some repeat a pair, a time or have no time."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    users, items, rows = rng.permutation(150), rng.permutation(60), 5000
    taste = rng.integers(0, 4, 150)
    user = rng.integers(0, 150, rows)
    item = np.where(rng.random(rows) < 0.7, taste[user] * 15 + rng.integers(0, 15, rows), rng.integers(0, 60, rows))
    times = pa.array(
        rng.integers(0, 4000, rows) * 3_600_000_000, pa.timestamp("us", "UTC"), mask=rng.random(rows) < 0.01
    )
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{one}" for one in user],
                "item_id": [f"i{one}" for one in item],
                "timestamp": times,
                "interaction_type": pa.array(["view", "buy", None]).take(pa.array(rng.integers(0, 3, rows))),
                "rating": rng.integers(1, 6, rows).astype(float),
            }
        ),
        folder / "interactions.parquet",
        row_group_size=700,
    )
    pq.write_table(pa.table({"user_id": [f"u{one}" for one in users]}), folder / "users.parquet")
    title = [f"title {one % 7}" for one in items]
    pq.write_table(pa.table({"item_id": [f"i{one}" for one in items], "text.title": title}), folder / "items.parquet")
    return folder


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Keeps arrays of any size on disk, in several blocks, and returns the config of the limit."""
    monkeypatch.setattr(core_scratch, "SMALL", 0)
    monkeypatch.setattr(histories, "BLOCK", 300)
    monkeypatch.setattr(prepare_histories, "BLOCK", 300)
    monkeypatch.setattr(windows, "BLOCK", 300)
    monkeypatch.setattr(order, "BLOCK", 300)
    monkeypatch.setattr(times, "BLOCK", 300)
    monkeypatch.setattr(json_lines, "PIECE", 100_000)
    monkeypatch.setattr(json_stream, "PIECE", 100_000)
    monkeypatch.setattr(csv_stream, "BLOCK", 100_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return "0"


def trained(folder, config, limit):
    """Return a recommender that was trained on the folder with a memory limit."""
    config = {**config, "data": {**config.get("data", {}), "memory_limit": limit}}
    dataset = Dataset.read(folder, load_config(config)[0].data)
    assert (dataset.scratch is not None) == (limit == "0")
    return Recommender.from_config(config).fit(dataset, progress=False)


def content(recommender):
    """Return everything that a training determines, as values that can be compared."""
    learning, model = recommender.model.learning, recommender.model
    found = {name: torch.from_numpy(np.array(getattr(learning.labels, name))) for name in learning.labels._fields}
    found |= {part: torch.from_numpy(learning.split.rows(part)) for part in ("train", "validation", "test")}
    found |= {"parts": torch.from_numpy(learning.parts), "order": torch.from_numpy(learning.dataset.time_order)}
    for name, (pairs, masks) in (("seen", learning.seen), ("positive", learning.positive_pairs)):
        found |= {f"{name} pairs": torch.from_numpy(pairs.keys()), f"{name} masks": torch.from_numpy(masks)}
    network = getattr(model, "scorer", None)
    found |= {} if not isinstance(network, torch.nn.Module) else network.state_dict()
    history = None if model.history is None else model.history.to_pylist()
    lists = recommender.recommend([f"u{one}" for one in range(20)], k=10).to_pylist()
    return found, (learning.split.name, learning.dataset.fingerprint(), recommender.metrics, history, lists)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_from_disk_is_training_in_memory(folder, config, on_disk):
    tensors, others = content(trained(folder, config, "1TB"))
    on_disk_tensors, on_disk_others = content(trained(folder, config, on_disk))
    assert on_disk_others == others
    assert on_disk_tensors.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], on_disk_tensors[name])] == []


def written(folder, tmp_path, kind):
    """Write the folder's tables as another format; interactions get a context."""
    tables = {part: pq.read_table(folder / f"{part}.parquet") for part in ("users", "items", "interactions")}
    tables["interactions"] = tables["interactions"].append_column("context.at", pa.array(range(5000)))
    for part, table in tables.items():
        frame = table.to_pandas()
        if kind == "parquet":
            pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=700)
        elif kind.startswith("csv"):
            frame.to_csv(tmp_path / f"{part}.{kind}", index=False)
        else:
            frame.to_json(tmp_path / f"{part}.{kind}", orient="records", lines=True, date_format="iso")
    return tables


def same(made, expected):
    """Assert that two datasets are equal, but for the note on the memory limit."""
    for part in ("users", "items", "interactions"):
        assert getattr(made, part).equals(getattr(expected, part))
    assert [note for note in made.notes if "data.memory_limit" not in note] == expected.notes
    assert made.scratch is not None and made.scratch.size > made.interactions.nbytes / 2
    rows = [made.origins[side].place(3, "x") for side in ("user", "item")]
    assert rows == [expected.origins[side].place(3, "x") for side in ("user", "item")]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "csv.gz", "parquet", "frames"])
def test_every_format_is_read_to_disk_as_to_memory(folder, kind, on_disk, tmp_path):
    tables = written(folder, tmp_path, kind)
    made, expected = (
        Dataset.from_tables(*tables.values(), options) if kind == "frames" else Dataset.read(tmp_path, options)
        for options in (DataConfig(memory_limit=on_disk), DataConfig(memory_limit="1TB"))
    )
    same(made, expected)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_interactions": 3000, "max_users": 140},
        {"min_user_interactions": 24},
        {"unknown_ids": "drop"},
    ],
)
def test_rows_are_dropped_on_disk_as_in_memory(folder, limits, on_disk, tmp_path):
    tables = written(folder, tmp_path, "parquet")
    pq.write_table(tables["users"][:120], tmp_path / "users.parquet")
    limits = {"unknown_ids": "keep", **limits}
    made, expected = (Dataset.read(tmp_path, DataConfig(memory_limit=limit, **limits)) for limit in (on_disk, "1TB"))
    assert 0 < len(made.interactions) < 5000
    same(made, expected)


COLUMNS = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp", "rating": "rating"}
SOURCES = {
    "one table": [{"columns": COLUMNS}],
    "features, values and a type": [
        {
            "columns": {
                **COLUMNS,
                "context.at": ["context.at", "item.continuous.at"],
                "interaction_type": {"to": "interaction_type", "values": {"buy": "bought"}},
            }
        }
    ],
    "two tables": [
        {"columns": COLUMNS, "only": {"interaction_type": ["buy"]}, "constants": {"interaction_type": "bought"}},
        {"columns": COLUMNS, "only": {"interaction_type": ["view", None]}},
    ],
    "a side table": [{"columns": {**COLUMNS, "text.title": "item.text.title"}, "join": [{"on": "item_id"}]}],
    "lists": [{"columns": {**COLUMNS, "item_id": {"to": "item_id", "split": "2", "explode": True}}}],
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("tables", SOURCES.values(), ids=SOURCES)
def test_tables_of_the_config_are_read_to_disk_as_to_memory(folder, tables, kind, on_disk, tmp_path):
    written(folder, tmp_path, kind)
    named = [{"path": f"interactions.{kind}", **table} for table in tables]
    for table in named:
        table["join"] = [{"path": f"items.{kind}", **side} for side in table.get("join", [])]
    sources = {"root": str(tmp_path), "interactions": named}
    made, expected = (
        Dataset.from_sources({"data": {"sources": sources, "memory_limit": limit}}) for limit in (on_disk, "1TB")
    )
    same(made, expected)


def test_rows_that_are_too_many_are_not_held_in_memory(on_disk):
    made = []

    def batches():
        for _ in range(50):
            batch = pa.record_batch({"a": np.arange(100)})
            made.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(one() is not None for one in made) <= 12

    room = Room(DataConfig(memory_limit=str(1000 * memory_limit.BYTES)), [])
    table = room.table(pa.schema({"a": pa.int64()}), batches())
    assert table["a"].to_pylist() == [*range(100)] * 50 and room.scratch.size > 40_000


def test_columns_of_categories_may_have_other_codes_in_each_batch(on_disk):
    batches = [pa.record_batch({"a": pa.array(cells).dictionary_encode()}) for cells in (["x", "y"], ["z", "x"])]
    table = Room(DataConfig(memory_limit=on_disk), []).table(batches[0].schema, batches)
    assert table["a"].to_pylist() == ["x", "y", "z", "x"]


@pytest.mark.parametrize(
    "fault", ['{"user_id": "u1", "user_id": "u2", "item_id": "i1"}', "[]", "{", '{"user_id": 1, "item_id": "i1"}']
)
def test_faults_of_a_long_file_are_those_of_a_short_one(folder, fault, on_disk, tmp_path):
    written(folder, tmp_path, "jsonl")
    with (tmp_path / "interactions.jsonl").open("a") as file:
        file.write(fault + "\n")
    with pytest.raises(DataError, match=r"interactions\.jsonl line 5001") as error:
        Dataset.read(tmp_path, DataConfig(memory_limit=on_disk))
    with pytest.raises(DataError) as expected:
        Dataset.read(tmp_path, DataConfig(memory_limit="1TB"))
    assert error.value.faults == expected.value.faults


def test_numbers_that_are_dates_in_a_part_of_a_file_only_are_seconds(on_disk, tmp_path):
    rows = [
        {"user_id": "u1", "item_id": "i1", "timestamp": 20240101 if n < 3000 else 1_500_000_000} for n in range(6000)
    ]
    (tmp_path / "interactions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = Dataset.read(tmp_path, DataConfig(memory_limit=on_disk, unknown_ids="keep"))
    assert made.interactions["timestamp"][0].as_py().year == 1970


def test_a_note_says_which_data_is_on_disk_and_why(folder, on_disk, tmp_path):
    dataset = Dataset.read(folder, DataConfig(memory_limit=on_disk))
    [note] = [note for note in dataset.notes if "data.memory_limit" in note]
    assert note.startswith("5,000 interactions take about 2.0 MB of memory") and str(tmp_path) in note
    assert Dataset.read(folder).notes == []


def test_a_full_disk_is_an_error_that_says_what_to_do(folder, on_disk, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 10))
    with pytest.raises(DataError, match="TMPDIR") as error:
        Dataset.read(folder, DataConfig(memory_limit=on_disk))
    assert error.value.faults[0].where == "data.memory_limit"
    monkeypatch.setattr(memory_limit, "free_memory", lambda: 1000)
    dataset = Dataset.read(folder)
    assert dataset.scratch is None and "They are kept in memory" in dataset.notes[-1]


def test_a_disk_that_fills_up_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(core_scratch, "SMALL", 0)
    with pytest.raises(OutputError):
        Scratch(tmp_path / "missing").keep(np.arange(10))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("7", 7), (7, 7), ("500MB", 500_000_000), ("4 GiB", 4 << 30), ("1.5kB", 1500), ("2TiB", 2 << 40), ("12B", 12)],
)
def test_limits_are_bytes(limit, expected):
    assert limit_of(DataConfig.model_validate({"memory_limit": limit})) == expected


def test_the_limit_is_by_default_half_of_the_free_memory(monkeypatch):
    free = free_memory()
    assert free is None or 1 << 20 < free < 1 << 50
    monkeypatch.setattr(memory_limit, "free_memory", lambda: 2 * memory_limit.BYTES * 100)
    room = Room(DataConfig(), [])
    assert room.made_for(100) is None and room.made_for(101) is room.made_for(1) is room.scratch is not None
    monkeypatch.setattr(memory_limit, "free_memory", lambda: None)
    assert Room(DataConfig(), []).made_for(10**12) is None


@pytest.mark.parametrize("limit", ["", "GB", "4gb", "-1GB", "4i", -1, 1.5, None, True])
def test_other_limits_are_errors(limit):
    with pytest.raises(ConfigError, match=r"memory_limit.*a size like 4GB") as error:
        load_config({"data": {"memory_limit": limit}})
    assert len(error.value.faults) == 1


VALUES = {
    "numbers": np.arange(1000),
    "a matrix": np.ones((50, 3), np.float32),
    "truths": np.arange(1000) % 3 == 0,
    "texts": pa.array(["a", None, "b"] * 100),
    "lists": pa.array([[{"item": 1, "kind": "x"}], None, []] * 50),
    "a tensor": torch.randn(40, 7),
    "a table": pa.table({"one": [1, 2, None], "two": ["x", "y", "z"]}),
    "nothing": np.empty(0, np.int64),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_on_disk_are_equal_and_leave_when_they_are_not_used(value, tmp_path, monkeypatch):
    monkeypatch.setattr(core_scratch, "SMALL", 0)
    scratch = Scratch(tmp_path)
    kept = scratch.keep(value)
    scratch.release()
    assert type(kept) is type(value) and list(tmp_path.iterdir()) == []
    if isinstance(value, pa.Array | pa.Table):
        assert kept.equals(value)
    else:
        assert kept.dtype == value.dtype and kept.shape == value.shape and (kept == value).all()
    assert (scratch.size > 0) == (value.nbytes > 0)
    del kept
    assert scratch.size == 0


def test_pages_are_released_when_many_more_are_in_memory(tmp_path, monkeypatch):
    mapped = iter([5, 12, 16, 6, 15, 17, 17, 27, 28, 17, 17])  # at first, then at each look and after each release
    released = []
    monkeypatch.setattr(core_scratch, "MAPPED", 10)
    monkeypatch.setattr(core_scratch, "PAUSE", 0)
    monkeypatch.setattr(core_scratch, "_mapped", lambda: next(mapped))
    monkeypatch.setattr(core_scratch.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    scratch = Scratch(tmp_path)
    monkeypatch.setattr(scratch, "release", lambda: released.append(1))
    with pytest.raises(StopIteration):
        core_scratch._watch(weakref.ref(scratch))
    assert len(released) == 3


def test_parts_are_written_one_after_another(tmp_path):
    scratch = Scratch(tmp_path)
    parts = [{"a": np.arange(n), "b": np.full((n, 2), n, np.float32)} for n in (3, 0, 5)]
    made = scratch.keep_parts(iter(parts))
    assert all((made[name] == np.concatenate([part[name] for part in parts])).all() for name in ("a", "b"))
    made["a"][0] = 7
    assert made["a"].tolist() == [7, 1, 2, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("block", [1, 40, 10_000])
def test_pairs_of_events_are_numbered_as_by_one_sort(block, monkeypatch):
    monkeypatch.setattr(windows, "BLOCK", block)
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 30, 40) * (rng.random(40) < 0.8)
    offsets = torch.from_numpy(np.append(0, np.cumsum(lengths)))
    items = Ragged(torch.from_numpy(rng.integers(0, 12, lengths.sum())), offsets)
    packer = SetPacker({"items": items}, torch.zeros(len(items.values), dtype=torch.int64), 64, 0.5)
    assert torch.equal(packer.pairs, torch.unique(items.row_of_value() * 12 + items.values, return_inverse=True)[1])


def test_a_column_that_arrow_cannot_join_is_an_error(folder, monkeypatch):
    def overflow(*_, **__):
        raise pa.ArrowInvalid("offset overflow while concatenating arrays")

    monkeypatch.setattr("anyrec.data.read.read_table_folder", overflow)
    with pytest.raises(DataError, match="a column has more than 2 GiB of texts"):
        Dataset.read(folder)
