"""A config is checked completely before training, and its published schema accepts what the program accepts."""

import datetime as dt
import json
import os
import socket

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import START, call, small_dataset

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError
from anyrec.core.hooks import HOOKS
from anyrec.core.load_config import load_config
from anyrec.core.schema import config_schema
from anyrec.core.strict_json import plain
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender

REGISTRY = discover()
SCHEMA = jsonschema.Draft202012Validator(config_schema(REGISTRY))


def faults(document, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(document, overrides)
    return {fault.where: fault for fault in error.value.faults}


WRONG = {
    "/index/type": {"index": {"type": "hnsw"}},
    "/index/efs": {"index": {"type": "exact", "efs": 3}},
    "/split": {"split": {"validation": 0.6, "test": 0.4}},
    "/evaluation/k": {"evaluation": {"k": []}},
    "/evaluation/k/0": {"evaluation": {"k": [0]}},
    "/evaluation/baselines/1": {"evaluation": {"baselines": ["ease", "eese"]}},
    "/training/metric": {"training": {"metric": "ndcg@10"}, "evaluation": {"k": [5]}},
    "/heads/score": {"heads": {"score": {"type": "rating"}}},
    "/heads/keys": {"heads": {"keys": {"type": "rating"}}},
    "/heads/a~1b": {"heads": {"a/b": {"type": "rating"}}},
    "/features/identity/sparse": {
        "features": {"identity": {"sparse": True}},
        "training": {"optimizer": {"weight_decay": 0.1}},
    },
    "/features/history/dropout": {"features": {"history": {"dropout": 1}}},
    "/history_dropout": {"history_dropout": 1},
    "/features/text/type": {"features": {"text": {"type": "cnn"}}},
    "/features/text/fields/title/ngrams": {"features": {"text": {"fields": {"title": {"ngrams": 99}}}}},
    "/loss/type": {"negatives": {"type": "labelled"}, "loss": {"type": "bpr"}},
    "/loss/parts/0/type": {"loss": {"type": "combined", "parts": {"bprr": 1}}},
    "/user/fusion/num_heads": {"fusion": {"type": "sum"}, "user": {"fusion": {"num_heads": 2}}},
    "/pipeline/retrieve/sources/0/type": {"pipeline": {"retrieve": {"sources": [{"type": "modl"}]}}},
    "/pipeline/retrieve/sources/0/model/l3": {
        "pipeline": {"retrieve": {"sources": [{"type": "classical", "model": {"type": "ease", "l3": 1}}]}}
    },
    "/pipeline/rerank/rules/0/where": {
        "pipeline": {"rerank": {"rules": [{"type": "where", "where": {"item.x": {"lx": 1}}}]}}
    },
    "/pipeline/rerank/rules/1/type": {
        "pipeline": {"rerank": {"rules": [{"type": "where", "where": {}}, {"where": {"item.x": {"lt": 1}}}]}}
    },
    "/pipeline/rank/type": {"pipeline": {"rank": {"type": "dnc"}}},
    "/training/device": {"training": {"device": "meta"}},
    "/model": {"model": {"type": "two_tower", "dim": 3}},
    "/model/type": {"model": {"type": "esae"}},
    "/dim": {"dim": 10**9},
    "/training/epochs": {"training": {"epochs": True}},
    "/id_dropout": {"id_dropout": "0.1"},
    "/training/optimizer/learning_rate": {"training": {"optimizer": {"learning_rate": float("nan")}}},
    "/seed": {"seed": 2**80},
    "/name": {"name": "a\x00b"},
    "/plugins/0": {"plugins": ["no_such_folder"]},
}


@pytest.mark.parametrize("where", WRONG)
def test_a_meaningless_value_is_a_fault_at_its_place(where):
    assert where in faults(WRONG[where])


def test_faults_of_many_kinds_are_reported_together():
    both = {"index": {"type": "hnsw"}, "loss": {"type": "sofmax"}, "heads": {"items": {"type": "ratin"}}}
    assert {"/index/type", "/loss/type", "/heads/items", "/heads/items/type"} <= set(faults(both))


def test_options_without_a_type_must_be_those_of_a_default_and_the_fault_names_components_that_have_them():
    config, _ = load_config({"loss": {"temperature": 2}, "fusion": {"start": 0.1}})
    assert not config.loss.named() and config.fusion.options() == {"start": 0.1}
    assert "'contrastive', 'triplet' have it" in faults({}, "loss.margin=2")["/loss/margin"].hint
    shared = {"fusion": {"type": "attention", "num_layers": 2}, "user": {"fusion": {"num_heads": 2}}}
    fusion = load_config(shared)[0].tower("user")[1]
    assert fusion.type == "attention" and fusion.options() == {"num_layers": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1]", "a config is an object of keys"),
        (b'{"dim": 3, "dim": 4}', "/dim: this key occurs more than once"),
        (b'{"dim": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"dim": NaN}', "no JSON number"),
        (b'{"name": "\\ud800"}', "half a surrogate"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"features": ' + b'{"a": ' * 200 + b"1" + b"}" * 201, "nested"),
        (b"{" + b" " * (17 << 20) + b"}", "bytes is no config"),
        (b"", "not valid JSON"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_a_file_that_is_no_config_is_a_fault(tmp_path, content, message):
    path = tmp_path / "cfg.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "marked.json").write_bytes(b'\xef\xbb\xbf{"dim": 8}')
    assert load_config(tmp_path / "marked.json")[0].dim == 8
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for place in (tmp_path, tmp_path / "pipe", tmp_path / "socket", tmp_path / "none", tmp_path / ("x" * 300)):
            with pytest.raises(ConfigError):
                load_config(place)


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("dim", "--set dim"),
        ("=3", "--set =3"),
        ("training..epochs=3", "--set training..epochs=3"),
        ("dim=" + "9" * 5000, "--set dim"),
        ("dim=NaN", "--set dim"),
        ("features=" + "[" * 9000, "--set features"),
        ("dim.x.y=3", "--set dim.x.y"),
        ('loss={"type": "bce", "type": "bpr"}', "--set loss"),
    ],
)
def test_an_override_that_cannot_be_set_is_a_fault(override, where):
    assert where in faults({"dim": 3}, override)


def test_values_from_python_are_read_as_their_json():
    import numpy as np

    config, _ = load_config({"dim": np.int64(8), "evaluation": {"k": (5, 10)}, "id_dropout": np.float32(0.5)})
    assert (config.dim, config.evaluation.k, config.id_dropout) == (8, [5, 10], 0.5)
    assert "/dim" in faults({"dim": {1, 2}}) and "/" in faults({1: 2})


def test_features_that_the_data_does_not_have_are_faults_before_training():
    for document, where in (
        ({"data": {"roles": {"user.nope": "items"}}}, "/data/roles/user.nope"),
        ({"data": {"roles": {"user.spending": "timestamps"}}}, "/data/roles/user.spending"),
        ({"evaluation": {"category": "categorical.nope"}}, "/evaluation/category"),
        ({"features": {"audio_": {"pool_group": True}}}, "/features/audio_"),
        ({"data": {"max_users": 3}}, "/data/max_users"),
        ({"data": {"min_item_interactions": 900}}, "/data/min_item_interactions"),
    ):
        with pytest.raises(ConfigError) as error:
            Recommender.from_config(document).fit(small_dataset(), progress=False)
        assert where in [fault.where for fault in error.value.faults]


def test_a_head_without_its_target_is_a_fault_before_training():
    data = small_dataset()
    bare = Dataset(data.users, data.items, data.interactions.drop_columns(["rating"]), roles=data.roles)
    with pytest.raises(ConfigError, match="/heads/stars: no interaction has 'rating'"):
        Recommender.from_config({"heads": {"stars": {"type": "rating"}}}).fit(bare, progress=False)


def test_a_split_by_time_that_leaves_nothing_is_a_fault_of_the_key_that_set_it():
    from anyrec.core.config import SplitConfig
    from anyrec.data.split import split_interactions

    data = small_dataset(users=4, each=2)
    days = pa.array([START + dt.timedelta(days=n) for n in range(8)], pa.timestamp("us", "UTC"))
    timed = data.interactions.set_column(data.interactions.column_names.index("timestamp"), "timestamp", days)
    data, late = Dataset(data.users, data.items, timed), {"validation": 0.5, "test": 0.49}
    with pytest.raises(ConfigError, match="/split/protocol"):
        split_interactions(data, SplitConfig(protocol="global_time", **late), 0)
    split, notes = split_interactions(data, SplitConfig(**late), 0)
    assert split.protocol == "random" and "would leave nothing to train on" in notes[0]


def test_roles_of_features_that_a_file_lacks_are_faults(tmp_path):
    from anyrec.core.config import DataConfig
    from anyrec.data.dataset import Dataset

    data = small_dataset()
    with pytest.raises(DataError, match=r"user.spend.*Did you mean 'user.spending'"):
        Dataset.from_tables(
            data.users, data.items, data.interactions, DataConfig(roles={"user.spend": "numbers"}), tmp_path
        )


def numbers(schema, where=""):
    """Every number or list in a schema, with its place."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number", "array"):
            yield where, schema
        for key, part in schema.items():
            yield from numbers(part, f"{where}/{key}")
    elif isinstance(schema, list):
        for place, part in enumerate(schema):
            yield from numbers(part, f"{where}/{place}")


FREE = ("availability", "pin", "explore", "http", "history/properties/types")
"""Options that hold values of the data, or that check themselves."""


def test_every_number_of_the_config_has_both_bounds():
    models = {"config": Config}
    models |= {f"{kind}:{name}": REGISTRY.get(kind, name).Params for kind in HOOKS for name in REGISTRY.names(kind)}
    for name, model in models.items():
        for where, schema in numbers(model.model_json_schema(), name):
            if any(part in where for part in FREE):
                continue
            if schema["type"] == "array":
                assert "maxItems" in schema, where
            else:
                assert {"minimum", "exclusiveMinimum"} & set(schema), where
                assert {"maximum", "exclusiveMaximum"} & set(schema), where


KEYS = ["type", "k", "fields", "pool_group", "block", "fusion", "features", "history", "text", "dropout", "nope"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([0.5, 1.0, 1.5, 10**30, 2**31, "", "x", "dot", "simple", "gru", "auto", "ndcg@3"]),
)
NESTED = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_published_schema_accepts_whatever_is_accepted(data):
    document = {}
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(Config.model_fields)))
        document[key] = data.draw(NESTED)
        inner = Config.model_fields[key].get_default(call_default_factory=True)
        if hasattr(type(inner), "model_fields") and data.draw(st.booleans()):
            document[key] = {data.draw(st.sampled_from(sorted(type(inner).model_fields))): data.draw(NESTED)}
    try:
        load_config(document, registry=REGISTRY)
    except ConfigError:
        return
    SCHEMA.validate(document)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "\x00", "é"]),
        st.lists,
        max_leaves=8,
    )
)
def test_what_passes_as_plain_can_be_written_as_strict_json(value):
    found, wrong = plain(value)
    if not wrong:
        assert json.loads(json.dumps(found, allow_nan=False)) == found == value


def test_the_command_line_reports_a_bad_config_with_exit_code_2(tmp_path):
    (tmp_path / "cfg.json").write_text('{"index": {"type": "[/b]"}, "dim": true}')
    code, _, message = call("train", "--data", tmp_path, "--config", tmp_path / "cfg.json")
    assert code == 2 and "/dim" in message


def test_faults_of_keys_and_of_components_are_reported_together():
    config = {"trainin": {"epochs": 3}, "fusion": {"type": "gatedd"}, "training": {"epochs": "x"}, "plugins": ["/none"]}
    with pytest.raises(ConfigError) as error:
        load_config({**config, "loss": {"type": "bpr", "nothing": 1}})
    assert {fault.where for fault in error.value.faults} == {
        "/trainin",
        "/fusion/type",
        "/training/epochs",
        "/plugins/0",
        "/loss/nothing",
    }
