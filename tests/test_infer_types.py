"""Components that a config describes by options alone: their type is the default that has them, or the only one."""

import json

import jsonschema
import pytest
from small import small_config, small_dataset

from anyrec.core.config import Config
from anyrec.core.config.components import components
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config
from anyrec.core.schema import config_schema
from anyrec.recommender import Recommender

REGISTRY = discover()
SCHEMA = jsonschema.Draft202012Validator(config_schema(REGISTRY))


def kinds(config):
    return {place.where: place.component.type for place in components(config) if place.component.named()}


@pytest.mark.parametrize("defaults", ["fixed", "fitted"])
@pytest.mark.parametrize(
    ("document", "where", "name"),
    [
        ({"fusion": {"num_heads": 2}}, "/fusion", "attention"),
        ({"user": {"fusion": {"num_heads": 2}}}, "/user/fusion", "attention"),
        ({"item": {"fusion": {"mimic": 0.2}}}, "/item/fusion", "adaptive_mimic"),
        ({"interaction": {"learn_temperature": True}}, "/interaction", "cosine"),
        ({"loss": {"gamma": 1.0}}, "/loss", "focal"),
        ({"negatives": {"top": 5}}, "/negatives", "hard"),
        ({"negatives": {"tries": 5}}, "/negatives", "popularity"),
        ({"pipeline": {"rank": {"cross_layers": 2}}}, "/pipeline/rank", "dcn"),
        ({"heads": {"rating": {"weight": 2.0}}}, "/heads/rating", "rating"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_the_only_component_with_the_options_is_meant(document, where, name, defaults):
    config, notes = load_config({**document, "defaults": defaults}, registry=REGISTRY)
    assert kinds(config)[where] == name
    assert where.startswith("/heads") or any(f"is '{name}'" in note for note in notes)
    SCHEMA.validate(document)


def test_an_override_needs_no_type_either():
    config, notes = load_config(None, ["fusion.num_heads=2"])
    assert config.fusion.type == "attention" and config.fusion.options() == {"num_heads": 2}
    assert notes == ["fusion.type is 'attention', the only fusion with 'num_heads'."]
    assert Recommender.from_config(Config(fusion={"num_heads": 2})).config.fusion.type == "attention"


@pytest.mark.parametrize(
    "document",
    [{"fusion": {"dropout": 0.2}}, {"loss": {"temperature": 0.5}}, {"negatives": {"block": 8}}],
    ids=json.dumps,
)
def test_the_default_is_meant_if_it_has_the_options(document):
    config, notes = load_config({**document, "defaults": "fixed"}, registry=REGISTRY)
    assert not kinds(config) and not notes
    SCHEMA.validate(document)


def test_a_ranker_without_a_type_is_the_default():
    for document in ({"rank": {}}, {"rank": {"k": 7}}, {"rank": {"hidden_dims": [8]}}):
        config, _ = load_config({"pipeline": document}, registry=REGISTRY)
        assert config.pipeline.rank.type == "mlp"
        SCHEMA.validate({"pipeline": document})


@pytest.mark.parametrize(
    ("document", "where", "message"),
    [
        ({"loss": {"margin": 1.0}}, "/loss/margin", "'contrastive', 'triplet' have it"),
        ({"fusion": {"nothing": 1}}, "/fusion/nothing", "unknown key"),
        ({"heads": {"stars": {}}}, "/heads/stars/type", "there is no head 'stars'"),
    ],
    ids=json.dumps,
)
def test_options_of_several_components_or_of_none_are_an_error(document, where, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(document, registry=REGISTRY)
    assert where in [fault.where for fault in caught.value.faults]


def test_a_model_is_trained_with_an_inferred_fusion():
    config = small_config(fusion={"num_heads": 2})
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    assert recommender.model.scorer.user.fusion.type == "attention"
