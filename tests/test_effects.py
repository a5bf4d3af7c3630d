"""No key of a config is ignored silently: one without effect in the combination chosen is an error or a note."""

import copy
import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pytest
from small import START, call, small_config, small_dataset

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.effects import chosen_by_user, idle_keys
from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.model.build import check_with_data
from anyrec.recommender import Recommender

REGISTRY = discover()
DATA = small_dataset()
NO_FEATURES = Dataset(
    DATA.users.select(["user_id"]), DATA.items.select(["item_id"]), DATA.interactions.drop_columns(["rating"])
)
COUNTS = [START + dt.timedelta(seconds=n % 8) for n in range(len(DATA.interactions))]
TIMES = pa.array(COUNTS, pa.timestamp("us", "UTC"))
BY_ORDER = DATA.interactions.drop_columns(["timestamp"]).append_column("timestamp", TIMES)
ORDERED = Dataset(DATA.users, DATA.items, BY_ORDER, roles=DATA.roles)
HISTORY = {"history": {"block": "mean"}}
FULL = {"loss": {"type": "full_softmax"}}


def checked(document, data=DATA):
    """Complete and check a config as `fit` does; return its notes."""
    asked, _ = load_config(document, registry=REGISTRY)
    config, _ = resolve_config(asked, data, REGISTRY)
    return check_with_data(config, REGISTRY, data, asked)


def places(document, data=DATA):
    with pytest.raises(ConfigError) as caught:
        checked(document, data)
    assert all("has no effect" in fault.what and fault.hint for fault in caught.value.faults)
    return [fault.where for fault in caught.value.faults]


@pytest.mark.parametrize("defaults", ["fixed", "fitted"])
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({**FULL, "negative_ratio": 8}, ["/negative_ratio"]),
        ({**FULL, "negatives": {"type": "uniform"}}, ["/negatives/type"]),
        ({**FULL, "negatives": {"type": "shared", "size": 9}}, ["/negatives/type", "/negatives/size"]),
        ({"negatives": {"type": "in_batch"}, "negative_ratio": 8}, ["/negative_ratio"]),
        ({"negatives": {"type": "mixed"}, "negative_ratio": 8}, ["/negative_ratio"]),
        ({"negatives": {"type": "shared"}, "negative_ratio": 8}, ["/negative_ratio"]),
        (
            {"negatives": {"type": "labelled", "exclude": "positives"}, "loss": {"type": "bce"}, "negative_ratio": 8},
            ["/negative_ratio", "/negatives/exclude"],
        ),
        ({"features": {"identity": None}, "id_dropout": 0.3}, ["/id_dropout"]),
        ({"features": {"history": None}, "history_dropout": 0.3}, ["/history_dropout"]),
        ({"features": {"history": {"block": "mean", "layers": 3}}}, ["/features/history/layers"]),
        ({"features": {"history": {"block": "gru", "heads": 4}}}, ["/features/history/heads"]),
        (
            {"defaults": "fixed", "user": {"features": {"history": {"half_life": 3.0}}}},
            ["/user/features/history/half_life"],
        ),
        ({"features": {"continuous": {"encoding": "linear", "bins": 4}}}, ["/features/continuous/bins"]),
        ({"features": {"categorical": {"hash_buckets": 8, "min_count": 3}}}, ["/features/categorical/min_count"]),
        ({"features": {"temporal": {"hidden_dim": 8}}}, ["/features/temporal/hidden_dim"]),
        (
            {"features": {"text": {"fields": {"bio": {"pool_group": True}}}}},
            ["/features/text/fields/bio/pool_group"],
        ),
        ({"data": {"drop_leaks": False, "leak_share": 0.5}}, ["/data/leak_share"]),
        ({"split": {"protocol": "random", "last_n": 3}}, ["/split/last_n"]),
        ({"split": {"protocol": "leave_last_out", "test": 0.3}}, ["/split/test"]),
        ({"training": {"optimizer": {"sparse": False, "sparse_rows": 9}}}, ["/training/optimizer/sparse_rows"]),
        ({"evaluation": {"baselines": [], "tune_baselines": False}}, ["/evaluation/tune_baselines"]),
        (
            {"pipeline": {"rank": {"type": "dcn", "training": {"holdout_fraction": 0.5}}}},
            ["/pipeline/rank/training/holdout_fraction"],
        ),
        (
            {"fusion": {"type": "sum"}, "user": {"fusion": {"type": "concat"}}, "item": {"fusion": {"type": "concat"}}},
            ["/fusion"],
        ),
        (
            {"pipeline": {"rerank": {"rules": [{"type": "explore", "positions": [2], "prior_clicks": 3.0}]}}},
            ["/pipeline/rerank/rules/0/prior_clicks"],
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_key_without_effect_is_an_error(document, expected, defaults):
    assert places({"defaults": defaults, **document}) == expected


def test_all_keys_without_effect_are_reported_at_once_with_other_errors():
    document = {**FULL, "negative_ratio": 8, "id_dropout": 0.5, "features": {"identity": None}}
    assert places(document) == ["/negative_ratio", "/id_dropout"]
    with pytest.raises(ConfigError) as caught:
        checked({**FULL, "negative_ratio": 8, "data": {"roles": {"user.x": "items"}}})
    assert {fault.where for fault in caught.value.faults} == {"/negative_ratio", "/data/roles/user.x"}


@pytest.mark.parametrize(
    "document",
    [
        {"negative_ratio": 8},
        {"negative_ratio": 8, "loss": {"type": "bpr"}},
        {"negative_ratio": 8, "negatives": {"type": "hard"}},
        {**FULL, "negatives": {"exclude": "positives"}},
        {"features": {"history": {"layers": 3, "fields": {"recent": {"block": "mean"}}}}},
        {"features": {"history": {"half_life": 3.0, "fields": {"recent": {"block": "mean"}}}}},
        {"features": {"history": {"block": "mean", "half_life": 3.0}}},
        {"history_dropout": 0.2},
        {"split": {"protocol": "leave_last_n", "last_n": 3}},
        {"interaction": {"type": "attention"}},
    ],
    ids=json.dumps,
)
def test_a_key_with_an_effect_is_accepted_and_gets_it(document):
    checked(document)
    config, _ = resolve_config(load_config(document, registry=REGISTRY)[0], DATA, REGISTRY)
    assert config.negative_ratio == document.get("negative_ratio", 4)
    if "negative_ratio" in document:
        assert REGISTRY.get("sampler", config.negatives.type).reads_ratio and config.loss.type != "full_softmax"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"features": {"history": {"block": "mean"}}},
        {"features": {"history": {"block": "gru"}}},
        {"features": {"history": {"type": "set"}}},
        {"features": {"history": None}},
        {"features": {"identity": None}},
        {"interaction": {"type": "mlp"}},
        {"negatives": {"type": "labelled"}, "loss": {"type": "bce"}},
        {"model": {"type": "ease"}},
        {"split": {"protocol": "none"}},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("data", [DATA, NO_FEATURES], ids=["features", "ids"])
def test_no_suggestion_is_without_effect(document, data):
    asked, _ = load_config(document, registry=REGISTRY)
    config, _ = resolve_config(asked, data, REGISTRY)
    assert not chosen_by_user(idle_keys(config, REGISTRY), config)
    assert not [note for note in check_with_data(config, REGISTRY, data) if "has no effect" in note]


def test_the_complete_config_of_a_model_can_be_trained_again():
    """It has a value for every key, also for those that its loss or sampler does not read."""
    for document in ({}, FULL, {"negatives": {"type": "shared"}}, {"model": {"type": "ease"}}):
        config, _ = resolve_config(load_config(document, registry=REGISTRY)[0], DATA, REGISTRY)
        complete = Config.model_validate(config.model_dump(mode="json"))
        assert checked(complete.model_dump(mode="json")) == []


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.json")), ids=lambda path: path.name)
def test_no_shipped_config_has_a_key_without_effect(path):
    config, _ = load_config(path, registry=REGISTRY)
    found = chosen_by_user(idle_keys(config, REGISTRY), config, config) if config.defaults == "fixed" else []
    assert not [one.note for one in found if one.is_fault]


def test_an_older_config_gets_a_note_instead():
    config, notes = load_config({"loss_type": "contrastive", "negative_sampling_ratio": 8})
    assert config.negative_ratio == 4
    assert any("'negative_ratio' has no effect" in note and "left out" in note for note in notes)


@pytest.mark.parametrize(
    ("document", "data", "expected"),
    [
        ({"model": {"type": "ease"}, "dim": 32, "loss": {"type": "bpr"}}, DATA, ["dim", "loss"]),
        ({"data": {"min_rating": 3.0}}, NO_FEATURES, ["data.min_rating"]),
        ({"split": {"protocol": "none"}, "training": {"patience": 3}}, DATA, ["training.patience"]),
        ({"features": {"history": None}, "id_dropout": 0.2}, NO_FEATURES, ["id_dropout"]),
        ({"user": {"feature_dropout": 0.2}}, NO_FEATURES, ["user.feature_dropout"]),
        ({"history_dropout": 0.2}, NO_FEATURES, ["history_dropout"]),
        (
            {"features": {"image": {"type": "cnn"}}, "explicit_negatives": False},
            DATA,
            ["features.image", "explicit_negatives"],
        ),
        ({"split": {"validation": 0.2}}, ORDERED, ["split.validation"]),
        (
            {"interaction": {"type": "attention"}, "features": {"history": None}, "fusion": {"type": "sum"}},
            DATA,
            ["fusion"],
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_key_that_other_data_or_models_read_gets_a_note(document, data, expected):
    notes = [note for note in checked(document, data) if "has no effect" in note]
    assert [note.split("'")[1] for note in notes] == expected


def test_notes_are_printed_by_the_command_and_kept_by_the_recommender(tmp_path):
    config = small_config(model={"type": "popularity"}, evaluation={"baselines": []})
    recommender = Recommender.from_config(copy.deepcopy(config)).fit(DATA, progress=False)
    assert any("'dim' has no effect" in note for note in recommender.notes)
    path = Path("datasets/synthetic/correlated_dataset.json")
    options = ["--set", "dim=8", "--set", "model.type=popularity", "--set", "evaluation.report=false"]
    code, out, _ = call("train", "--data", path, *options, "--output", tmp_path)
    assert code == 0 and out.count("'dim' has no effect") == 1


def test_an_error_comes_before_any_training(tmp_path):
    path = Path("datasets/synthetic/correlated_dataset.json")
    options = ["--set", "loss.type=full_softmax", "--set", "negative_ratio=4"]
    code, _, message = call("train", "--data", path, *options, "--output", tmp_path)
    assert code == 2 and "/negative_ratio: this has no effect: the loss 'full_softmax'" in message
