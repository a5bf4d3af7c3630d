"""Any data document is refused with an error that says why, or is read and fits the published schema."""

import json
from pathlib import Path

import jsonschema
from hostile import FUZZ, VALUES, encode, from_schema, mutated, mutated_bytes, refusal
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from anyrec.core.config import Config
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.describe import describe_dataset
from anyrec.data.doctor.examine import as_lines, examine

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "dataset.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DOCUMENT = {
    "user_data": [
        {
            "user_id": "u1",
            "text": {"bio": "sails"},
            "categorical": {"job": "nurse", "tags": ["a", "b"]},
            "continuous": {"age": 34},
        },
        {"user_id": "u2", "temporal": {"visits": [1, 2.5], "prev_interactions": ["i1"]}, "continuous": {"age": None}},
        {"user_id": "u3"},
    ],
    "item_data": [
        {"item_id": "i1", "text": {"title": "A kite"}, "image": {"views": ["a.png"]}, "continuous": {"price": 2.5}},
        {
            "item_id": "i2",
            "temporal": {"restocked": ["2024-01-01", "2024-02-01T10:00:00Z"]},
            "audio": {"clip": "a.wav"},
        },
    ],
    "interactions": [
        {"user_id": "u1", "item_id": "i1", "interaction_type": "buy", "timestamp": "2024-01-02T03:04:05Z", "rating": 4},
        {
            "user_id": "u2",
            "item_id": "i2",
            "timestamp": 1715949000,
            "weight": 2,
            "label": 1,
            "context": {"device": "phone"},
        },
        {"user_id": "u1", "item_id": "i2", "timestamp": 1715949001.5, "label": 0},
    ],
}
DOCUMENTS = mutated(st.just(DOCUMENT) | from_schema(SCHEMA, SCHEMA))


def schema_refuses(data: bytes) -> str:
    """Why the published schema, and JSON by the letter, refuse the text; empty if they accept it."""

    def pairs(items):
        if len({key for key, _ in items}) < len(items):
            raise ValueError("repeated key")
        return dict(items)

    def constant(name):
        raise ValueError(name)

    try:
        document = json.loads(data.decode().removeprefix("\ufeff"), object_pairs_hook=pairs, parse_constant=constant)
        error = next(VALIDATOR.iter_errors(document), None)
        return "" if error is None else error.message[:300]
    except (ValueError, RecursionError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"[:300]


@FUZZ
@given(data=mutated_bytes(DOCUMENTS.map(encode)))
def test_a_document_is_refused_or_keeps_to_the_schema(data, tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(data)
    error = refusal(lambda: Dataset.read(path))
    if error is None:
        assert not schema_refuses(data)
    else:
        assert isinstance(error, DataError)


@FUZZ
@given(data=DOCUMENTS.map(encode))
def test_data_that_are_read_can_be_described_and_examined(data, tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(data)
    try:
        dataset = Dataset.read(path)
    except DataError:
        return
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        Console(file=nowhere).print(describe_dataset(dataset))
    assert all(isinstance(line, str) for line in as_lines(examine(dataset, Config(), images=False), 20))


@FUZZ
@given(
    place=st.sampled_from(["user_data", "item_data", "interactions"]),
    row=st.integers(0, 1),
    value=VALUES,
    data=st.data(),
)
def test_a_bad_value_is_reported_at_its_place(place, row, value, data, tmp_path):
    document = json.loads(json.dumps(DOCUMENT))
    key = data.draw(st.sampled_from(sorted(document[place][row])))
    document[place][row][key] = value
    path = tmp_path / "data.json"
    path.write_bytes(encode(document))
    error = refusal(lambda: Dataset.read(path))
    if error is not None:
        assert any(part in str(error) for part in (f"/{place}/{row}/{key}", f"/{place}", "data.json", "/interactions"))
