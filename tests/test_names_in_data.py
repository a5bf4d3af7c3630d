"""Values of a config that name something in the data are checked before training, all at once."""

import json

import pyarrow as pa
import pytest
from small import call, small_config, small_dataset

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.model.build import check_with_data
from anyrec.model.model_data import ModelData
from anyrec.pipeline.fit import check_pipeline
from anyrec.recommender import Recommender

REGISTRY = discover()
DATA = small_dataset()
TIMELESS = Dataset(DATA.users, DATA.items, DATA.interactions.drop_columns(["timestamp"]), roles=DATA.roles)
BARE = Dataset(DATA.users, DATA.items.select(["item_id"]), DATA.interactions, roles={"user.spending": "numbers"})


def check(document, data=DATA):
    asked, _ = load_config({"defaults": "fixed", **document}, registry=REGISTRY)
    config, _ = resolve_config(asked, data, REGISTRY)
    notes = check_with_data(config, REGISTRY, data, asked)
    return notes + check_pipeline(ModelData(config=config, registry=REGISTRY, dataset=data, has_vectors=True))


@pytest.mark.parametrize(
    ("document", "data", "where", "message"),
    [
        ({"data": {"positive_types": {"bye": 1.0}}}, DATA, "/data/positive_types", "'buy'"),
        ({"data": {"positive_types": {"buy": 0.0}}}, DATA, "/data/positive_types", "no type with a weight above 0"),
        ({"data": {"roles": {"user.spendings": "numbers"}}}, DATA, "/data/roles/user.spendings", "'user.spending'"),
        ({"evaluation": {"category": "categorical.tag"}}, DATA, "/evaluation/category", "'categorical.tags'"),
        ({"evaluation": {"traits": ["categorical.tag"]}}, DATA, "/evaluation/traits/0", "'categorical.tags'"),
        ({"evaluation": {"baselines": ["recent_popularity"]}}, TIMELESS, "/evaluation/baselines/0", "timestamp"),
        ({"model": {"type": "content_knn"}}, BARE, "/model/type", "no text"),
        ({"blend": {"models": [{"type": "trending"}]}}, TIMELESS, "/blend/models/0/type", "timestamp"),
        ({"features": {"text": {"type": "clip"}}}, DATA, "/features/text/type", "reads the group 'image'"),
        ({"features": {"temporal": {"type": "timestamps"}}}, BARE, "/features/temporal/type", "no temporal feature"),
        (
            {"features": {"temporal": {"fields": {"spending": {"type": "timestamps"}}}}},
            DATA,
            "/features/temporal/fields/spending/type",
            "'spending' holds numbers",
        ),
        ({"training": {"metric": "ndcg@7"}}, DATA, "/training/metric", "evaluation.k"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_name_that_the_data_lack_is_an_error(document, data, where, message):
    with pytest.raises(ConfigError) as caught:
        check(document, data)
    found = {fault.where: f"{fault.what} {fault.hint}" for fault in caught.value.faults}
    assert list(found) == [where] and message in found[where]


def test_several_are_reported_together():
    document = {
        "data": {"positive_types": {"bye": 1.0}, "roles": {"item.x": "items", "user.y": "numbers"}},
        "evaluation": {"category": "categorical.tag"},
    }
    with pytest.raises(ConfigError) as caught:
        check(document)
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize(
    "document",
    [
        {"data": {"positive_types": {"buy": 1.0, "gift": 2.0}}},
        {"features": {"temporal": {"type": "sequence"}}},
        {"evaluation": {"baselines": ["recent_popularity", "content_knn"]}},
    ],
    ids=json.dumps,
)
def test_names_of_which_the_data_have_some_are_accepted(document):
    check(document)


def test_a_history_that_no_user_has_gets_a_note_since_requests_can_pass_it():
    (note,) = check({"data": {"history": "spendings"}})
    assert "'spendings' (data.history)" in note and "Did you mean 'spending'?" in note
    assert check({"data": {"history": "spending"}}) == []


def rules(*made):
    return {"pipeline": {"rerank": {"rules": list(made)}}}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"type": "boost", "where": {"item.categorical.tags": {"contains": "pilots"}}, "factor": 2.0}, "'pilots'"),
        ({"type": "where", "where": {"item.categorical.tags": {"overlaps": ["pilot", "cook"]}}}, "'cook'"),
        ({"type": "where", "where": {"not": {"item.id": {"eq": "i999"}}}}, "'i999'"),
        ({"type": "where", "where": {"user.categorical.job": {"in": ["clark"]}}}, "no user has 'clark'"),
        (
            {"type": "pin", "items": [{"item": "i001", "position": 1, "where": {"user.categorical.job": {"eq": "x"}}}]},
            "no user has 'x'",
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_a_value_of_a_rule_that_no_record_has_gets_a_note(rule, expected):
    (note,) = check(rules(rule))
    assert note.startswith(f"The rule '{rule['type']}'") and expected in note


def test_values_that_records_have_and_comparisons_of_numbers_get_no_note():
    where = {"item.categorical.tags": {"contains": "pilot"}, "item.continuous.price": {"lt": 1e9}}
    titles = {"type": "where", "where": {"item.text.title": {"contains": "nothing of the sort"}}}
    assert check(rules({"type": "where", "where": where}, titles)) == []


def test_a_feature_that_its_encoder_cannot_read_at_all_gets_a_note():
    bios = DATA.users.column("text.bio")
    data = Dataset(DATA.users.append_column("notes.bio", bios), DATA.items, DATA.interactions, roles=DATA.roles)
    config = small_config(features={"notes": {"type": "visual_descriptor"}})
    notes = Recommender.from_config(config).fit(data, progress=False).notes
    assert any("'notes.bio' has no effect: the encoder 'visual_descriptor' reads none of its" in note for note in notes)


def test_validate_and_train_say_the_same(tmp_path):
    data = "datasets/synthetic/correlated_dataset.json"
    where = {"item.categorical.weather": {"eq": "sunny"}}
    config = {
        "model": {"type": "popularity"},
        "evaluation": {"report": False},
        **rules({"type": "where", "where": where}),
    }
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(config))
    code, _, message = call("validate", data, "--config", path, "--no-images")
    assert code == 0 and "no item has 'sunny' in 'item.categorical.weather'. Did you mean 'sun'?" in " ".join(
        message.split()
    )
    code, out, _ = call("train", "--data", data, "--config", path, "--output", tmp_path)
    assert code == 0 and " ".join(out.split()).count("no item has 'sunny'") == 1
    config["data"] = {"positive_types": {"viewed": 1.0}}
    path.write_text(json.dumps(config))
    for command in (["validate", data, "--no-images"], ["train", "--data", data, "--output", tmp_path]):
        code, _, message = call(*command, "--config", path)
        assert code == 2 and "/data/positive_types" in message


def test_the_shipped_configs_name_what_their_data_have():
    data = Dataset.read("datasets/synthetic/correlated_dataset.json")
    for name in ("correlated_dataset_config", "correlated_dataset_attention_config", "correlated_dataset_pipeline"):
        asked, _ = load_config(f"configs/{name}.json", registry=REGISTRY)
        config, _ = resolve_config(asked, data, REGISTRY)
        model = ModelData(config=config, registry=REGISTRY, dataset=data, has_vectors=True)
        assert check_with_data(config, REGISTRY, data, asked) == check_pipeline(model) == []


def test_positive_types_by_label_are_enough():
    labels = pa.array([1] * len(DATA.interactions), pa.int8())
    data = Dataset(DATA.users, DATA.items, DATA.interactions.append_column("label", labels), roles=DATA.roles)
    check({"data": {"positive_types": {"bye": 1.0}}}, data)


def test_validate_reports_groups_that_no_encoder_reads_and_what_they_may_mean(tmp_path):
    document = {
        "user_data": [{"user_id": "u", "categorial": {"job": "nurse"}}],
        "item_data": [{"item_id": "i", "sensors": {"a": 1}}],
        "interactions": [{"user_id": "u", "item_id": "i"}],
    }
    (tmp_path / "d.json").write_text(json.dumps(document))
    code, _, message = call("validate", tmp_path / "d.json")
    assert code == 0
    assert "user feature 'categorial.job' is not used: no encoder reads the group" in message.replace("\n", " ")
    assert "Did you mean 'categorical'?" in message and "item feature 'sensors.a' is not used" in message
