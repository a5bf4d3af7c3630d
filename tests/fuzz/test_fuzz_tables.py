"""Any folder of tables and any Arrow tables are read or refused with an error that says why."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from hostile import FUZZ, TEXTS, mutated, mutated_bytes, refusal
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset

NAMES = [
    "user_id", "item_id", "timestamp", "rating", "weight", "label", "interaction_type", "context.device", "context",
    "user.x", "categorical.job", "categorical.tags", "continuous.age", "text.title", "image.cover", "temporal.visits",
    "identity.id", "history.x", "audio.clip", "", "categorical.", ".x", "categorical.a\nb", "[/bold].x",
]  # fmt: skip
WORDS = st.sampled_from([text for text in TEXTS if text.isprintable() and len(text) < 100]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=6
)
SECONDS = st.integers(0, 2**31)
TYPES = [
    (pa.string(), WORDS), (pa.large_string(), WORDS), (pa.string_view(), WORDS), (pa.binary(), st.binary(max_size=4)),
    (pa.int8(), st.integers(-100, 100)), (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)), (pa.float16(), st.floats(width=16)), (pa.float64(), st.floats()),
    (pa.bool_(), st.booleans()), (pa.null(), st.none()), (pa.date32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.date64(), SECONDS.map(lambda n: n * 86_400_000)), (pa.time32("s"), st.integers(0, 86_399)),
    (pa.timestamp("s"), st.integers(-(2**63) + 1, 2**63 - 1)),
    (pa.timestamp("ns", "UTC"), st.integers(-(2**62), 2**62)), (pa.duration("ms"), SECONDS),
    (pa.decimal128(10, 2), st.decimals(-1000, 1000, places=2)), (pa.list_(pa.string()), st.lists(WORDS, max_size=2)),
    (pa.list_(pa.float64()), st.lists(st.floats(), max_size=3)),
    (pa.list_(pa.int64(), 2), st.lists(SECONDS, min_size=2, max_size=2)),
    (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": SECONDS})),
    (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(WORDS, SECONDS), max_size=2)),
    (pa.list_(pa.list_(pa.string())), st.lists(st.lists(WORDS, max_size=2), max_size=2)),
]  # fmt: skip


@st.composite
def tables(draw, ids, rows=4):
    """A table with good ids more often than not, and columns of any name and type."""
    names, columns = [], []
    for name in ids:
        if draw(st.integers(0, 9)):
            names.append(f"{name}_id")
            columns.append(pa.array([f"{name[0]}{n}" for n in range(rows)]))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        kind, values = draw(st.sampled_from(TYPES))
        column = pa.array(draw(st.lists(values | st.none(), min_size=rows, max_size=rows)), kind)
        names.append(name)
        columns.append(column.dictionary_encode() if kind == pa.string() and draw(st.booleans()) else column)
    return pa.Table.from_arrays(columns, names=names)


@FUZZ
@given(
    users=tables(["user"]),
    items=tables(["item"]),
    interactions=tables(["user", "item"]),
    unknown=st.sampled_from(["error", "drop", "keep"]),
)
def test_arrow_tables_are_read_or_refused(users, items, interactions, unknown):
    options = DataConfig(unknown_ids=unknown)
    error = refusal(lambda: Dataset.from_tables(users, items, interactions, options))
    assert error is None or isinstance(error, DataError)


@FUZZ
@given(parts=st.tuples(tables(["user"]), tables(["item"]), tables(["user", "item"])))
def test_a_parquet_folder_gives_the_dataset_of_its_tables(parts, tmp_path):
    for name, table in zip(("users", "items", "interactions"), parts, strict=True):
        try:
            pq.write_table(table, tmp_path / f"{name}.parquet")
        except (pa.ArrowException, ValueError):  # not every Arrow type has a Parquet form
            return
    read, given_directly = [], []
    refused = refusal(lambda: read.append(Dataset.read(tmp_path)))
    assert refused is None or isinstance(refused, DataError)
    directly = refusal(lambda: given_directly.append(Dataset.from_tables(*parts)))
    assert (refused is None) == (directly is None)
    if refused is None:
        assert read[0].interactions.equals(given_directly[0].interactions)


CSV = {
    "users.csv": 'user_id,categorical.job,continuous.age\nu1,nurse,34\nu2,"a ""b""",\n',
    "items.csv": "item_id,text.title,continuous.price\ni1,A kite,2.5\ni2,,1\n",
    "interactions.csv": "user_id,item_id,timestamp,rating\nu1,i1,2024-01-01T00:00:00Z,4\nu2,i2,1715949000,5\n",
}
LINES = {
    "users.jsonl": '{"user_id": "u1", "categorical": {"job": "nurse"}}\n{"user_id": "u2"}\n',
    "items.jsonl": '{"item_id": "i1"}\n{"item_id": "i2", "text": {"title": "x"}}\n',
    "interactions.jsonl": '{"user_id": "u1", "item_id": "i1"}\n\n{"user_id": "u2", "item_id": "i2", "timestamp": 5}\n',
}


@FUZZ
@given(data=st.data(), files=st.sampled_from([CSV, LINES]))
def test_a_folder_of_damaged_text_files_is_read_or_refused(data, files, tmp_path):
    for name, text in files.items():
        piece = data.draw(WORDS)
        lines = data.draw(mutated(st.just(text.split("\n")), WORDS, most=1))
        spoilt = "\n".join(part if isinstance(part, str) else json.dumps(part) for part in lines)
        if data.draw(st.booleans()):
            spoilt = spoilt.replace(data.draw(st.sampled_from([",", "\n", "i1", '"', "1"])), piece, 1)
        (tmp_path / name).write_bytes(data.draw(mutated_bytes(st.just(spoilt.encode()))))
    error = refusal(lambda: Dataset.read(tmp_path))
    for name in files:
        (tmp_path / name).unlink()
    assert error is None or isinstance(error, DataError)
