"""Configs of the older flat format, former names of keys, and overrides."""

import json
from pathlib import Path

import pytest
from small import small_dataset

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.legacy import KNOWN, is_legacy, translate
from anyrec.core.load_config import load_config
from anyrec.recommender import Recommender

ISSUED = {
    "embedding_dim": 24,
    "loss_type": "focal",
    "user_use_simple_fusion": False,
    "item_use_simple_fusion": True,
    "interaction_use_simple_fusion": True,
    "user_num_attention_layers": 2,
    "user_num_heads": 2,
    "user_dropout": 0.2,
    "user_use_cls_token": False,
    "user_use_layer_norm": True,
    "item_dropout": 0.3,
    "classifier_hidden_dims": [32, 16],
    "classifier_dropout": 0.1,
    "text_encoder_config": {"max_length": 64},
    "categorical_encoder_config": {"min_count": 2, "hidden": 3},
    "continuous_encoder_config": {"encoding": "linear"},
    "image_encoder_config": None,
    "temporal_encoder_config": {"pooling": "gru"},
    "train_split": 0.8,
    "batch_size": 64,
    "negative_sampling_ratio": 3,
    "seed": 5,
    "num_epochs": 2,
    "learning_rate": 0.01,
    "optimizer_type": "Adam",
    "scheduler_type": "cosine",
    "model_name": "older",
}


def test_every_key_of_the_older_format_is_translated():
    config, notes = load_config(ISSUED | {"text_encoder_config": {}})
    assert (config.dim, config.seed, config.name, config.negative_ratio) == (24, 5, "older", 3)
    assert config.loss.type == "focal"
    assert config.user.fusion.type == "attention"
    assert config.user.fusion.options() == {
        "num_layers": 2,
        "num_heads": 2,
        "dropout": 0.2,
        "use_cls_token": False,
        "use_layer_norm": True,
    }
    assert config.item.fusion.type == "simple" and config.item.fusion.options() == {"dropout": 0.3}
    assert config.interaction.type == "mlp" and config.interaction.options() == {
        "hidden_dims": [32, 16],
        "dropout": 0.1,
    }
    assert config.features["image"] is None
    assert config.features["temporal"].options() == {"pooling": "gru"}
    assert config.split.protocol == "random" and config.split.test == pytest.approx(0.1)
    assert (config.training.epochs, config.training.batch_size) == (2, 64)
    assert (config.training.optimizer.type, config.training.optimizer.learning_rate) == ("adam", 0.01)
    assert config.training.scheduler.type == "cosine"
    message = " ".join(notes)
    assert all(
        f"'{key}" in message for key in ISSUED if key not in ("text_encoder_config", "categorical_encoder_config")
    )
    assert "'categorical_encoder_config.hidden' has no counterpart" in message


def test_an_older_config_trains():
    config, _ = load_config(ISSUED | {"text_encoder_config": {}})
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    assert recommender.model.scorer.user.fusion.type == "attention"
    assert len(recommender.result.history) == 2


@pytest.mark.parametrize("name", ["bce", "contrastive", "combined", "focal", "triplet"])
def test_every_older_loss_has_its_counterpart(name):
    config, _ = load_config({"loss_type": name})
    assert config.loss.type == {"contrastive": "infonce"}.get(name, name)


def test_faults_of_the_older_style_are_reported_together_with_the_nearest_key():
    with pytest.raises(ConfigError) as error:
        load_config({"embeding_dim": 3, "num_epochs": 2, "loss_type": "bcee", "train_split": 7})
    message = str(error.value)
    assert "Did you mean 'embedding_dim'" in message and "Did you mean 'bce'" in message and "/train_split" in message
    assert message.startswith("3 faults")


def test_one_config_can_have_keys_of_both_formats():
    config, _ = load_config({"num_epochs": 4, "training": {"batch_size": 99}, "fusion": {"type": "gated"}})
    assert (config.training.epochs, config.training.batch_size, config.fusion.type) == (4, 99, "gated")
    assert not is_legacy({"seed": 3, "training": {}})


def test_all_faults_of_a_config_are_reported_at_once():
    with pytest.raises(ConfigError) as error:
        load_config({"dmi": 3, "training": {"epochs": 0, "optimizer": {"learnig_rate": 1}}})
    message = str(error.value)
    assert (
        "Did you mean 'dim'" in message and "/training/epochs" in message and "Did you mean 'learning_rate'" in message
    )


def test_overrides_reach_any_depth_and_keep_their_type():
    config, _ = load_config(
        {}, ["fusion.type=gated", "training.optimizer.weight_decay=0.5", "features.image=null", "name=x1"]
    )
    assert config.fusion.type == "gated" and config.training.optimizer.weight_decay == 0.5
    assert config.features == {"image": None} and config.name == "x1"


def test_a_broken_file_is_a_fault_with_its_position(tmp_path: Path):
    (tmp_path / "c.json").write_text('{"dim": 3,}')
    with pytest.raises(ConfigError, match=r"c.json:1:\d+: not valid JSON"):
        load_config(tmp_path / "c.json")
    with pytest.raises(ConfigError, match="anyrec init"):
        load_config(tmp_path / "none.json")


def test_illegal_combinations_are_refused():
    for extra in ({"weight_decay": 0.1}, {"max_norm": 1.0}):
        with pytest.raises(ConfigError, match="sparse: true cannot go with"):
            load_config({"training": {"optimizer": {"sparse": True, **extra}}})


def test_a_complete_config_reads_back_to_itself():
    config, _ = load_config(
        {"fusion": {"type": "attention", "num_heads": 2}, "features": {"text": {"type": "hashed", "buckets": 99}}}
    )
    assert Config.model_validate(json.loads(config.model_dump_json())) == config


def test_former_names_of_keys_still_work_and_are_noted_once():
    ranker = {"type": "dcn", "training": {"kept": 0.3, "held_out": 0.4}}
    config, notes = load_config(
        {
            "features": {"text": {"together": True}, "categorical": {"together": True}},
            "pipeline": {"rank": ranker},
        }
    )
    assert config.features["text"].pool_group and config.features["text"].options() == {}
    assert config.pipeline.rank.training.validation_fraction == 0.3
    assert config.pipeline.rank.training.holdout_fraction == 0.4
    assert sorted(notes) == [
        f"'{old}' is now called '{new}'. The old name will be removed; change it in your config."
        for old, new in (("held_out", "holdout_fraction"), ("kept", "validation_fraction"), ("together", "pool_group"))
    ]
    assert load_config(config.model_dump(mode="json"))[1] == []


def test_a_key_under_both_names_is_refused():
    with pytest.raises(ConfigError, match="'together' is the former name of 'pool_group', which is also set"):
        load_config({"features": {"text": {"together": True, "pool_group": True}}})


def test_former_names_of_a_component_s_options_still_work(tmp_path):
    (tmp_path / "length.py").write_text(
        """
from pydantic import Field
from anyrec import Encoder
from anyrec.core.contracts import Params

class Length(Encoder):
    type = "length"
    group = "text"

    class Params(Params):
        renamed = {"size": "dimension"}
        dimension: int = Field(1, ge=1, le=9)
"""
    )

    def read(**options):
        document = {"features": {"text": {"type": "length", **options}}, "plugins": [str(tmp_path)]}
        return load_config(document, registry=discover([tmp_path]))

    assert read(size=3)[1] == [
        "'size' is now called 'dimension'. The old name will be removed; change it in your config."
    ]
    assert read(dimension=3)[1] == []
    with pytest.raises(ConfigError, match="/features/text: 'size' is the former name of 'dimension'"):
        read(size=3, dimension=3)
    with pytest.raises(ConfigError, match="/features/text/dimension"):
        read(size=30)
    assert discover([tmp_path]).params("encoder", "length", {"size": 3}).dimension == 3


def test_every_key_of_the_list_is_known():
    assert set(ISSUED) <= KNOWN
    made = translate({"seed": 1})
    assert (made.document, made.notes) == ({"seed": 1}, ["'seed' became 'seed': 1."])
