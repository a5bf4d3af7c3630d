"""Any config is read, or refused with a reason; the validator and the published schema accept the same configs."""

import json
from pathlib import Path

import jsonschema
from hostile import FUZZ, encode, from_schema, mutated, mutated_bytes, refusal
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "schemas" / "config.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
REGISTRY = discover()
SHIPPED = [json.loads(path.read_text()) for path in sorted((ROOT / "configs").glob("*.json"))]
CONFIGS = mutated(st.sampled_from(SHIPPED) | from_schema(SCHEMA, SCHEMA), most=2)


@FUZZ
@given(data=mutated_bytes(CONFIGS.map(encode)))
def test_a_config_is_refused_or_keeps_to_the_schema(data, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    notes = []
    error = refusal(lambda: notes.extend(load_config(path, registry=REGISTRY)[1]))
    if error is None and not notes:  # the older flat style is translated, with notes, and has no schema
        VALIDATOR.validate(json.loads(data.decode().removeprefix("\ufeff")))
    assert error is None or isinstance(error, ConfigError)


KEYS = st.text(max_size=12) | st.sampled_from(
    ["fusion.num_heads", "training", "training.epochs", "a.b.c", "=", "data.roles"]
)
OVERRIDES = st.text(max_size=12) | CONFIGS.map(lambda config: encode(config).decode())


@FUZZ
@given(key=KEYS, value=OVERRIDES)
def test_an_override_is_refused_or_keeps_to_the_schema(key, value):
    error = refusal(lambda: load_config({}, [f"{key}={value}"], registry=REGISTRY))
    assert error is None or isinstance(error, ConfigError)


@FUZZ
@given(config=from_schema(SCHEMA, SCHEMA))
def test_an_accepted_config_is_accepted_again_after_it_is_written(config):
    try:
        loaded, _ = load_config(config, registry=REGISTRY)
    except ConfigError:
        return
    written = json.dumps(loaded.model_dump(mode="json", exclude_unset=True))
    again, notes = load_config(json.loads(written), registry=REGISTRY)
    assert again == loaded
    assert not notes
