"""Configs of other projects are translated key by key, with notes, and train."""

import json
import re

import pytest
import yaml
from conftest import ROOT
from small import small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.errors import ConfigError
from anyrec.core.legacy import ENCODER_OPTIONS, OPTIONS_LEFT_OUT
from anyrec.core.legacy import KNOWN as FLAT
from anyrec.core.legacy import LEFT_OUT as FLAT_LEFT_OUT
from anyrec.core.load_config import load_config
from anyrec.core.two_tower_project import KNOWN, is_of_the_project, translate
from anyrec.data.formats.write_json import write_json

FLAT_CONFIG = {
    "embedding_dim": 16,
    "loss_type": "bce",
    "user_use_simple_fusion": True,
    "item_use_simple_fusion": False,
    "item_num_attention_layers": 1,
    "item_num_heads": 4,
    "interaction_use_simple_fusion": True,
    "classifier_hidden_dims": [8],
    "text_encoder_config": {
        "model_name": "glove-wiki-gigaword-50",
        "aggregation_strategy": "mean",
        "embedding_dim": 16,
        "num_text_fields": 1,
    },
    "categorical_encoder_config": {"hash_vocab_size": 64, "aggregation_strategy": "separate_concat"},
    "continuous_encoder_config": {"normalize": True, "hidden_dims": [8]},
    "image_encoder_config": {"model_type": "cnn", "num_cnn_layers": 2},
    "temporal_encoder_config": {"enable_item_lookup": True, "aggregation_strategy": "lstm", "max_sequence_length": 9},
    "train_split": 0.8,
    "batch_size": 64,
    "negative_sampling_ratio": 1.4,
    "num_epochs": 1,
    "learning_rate": 0.01,
    "optimizer_type": "Adam",
    "scheduler_type": "plateau",
    "print_every": 5,
    "model_name": "shop",
}
ENCODER = {
    "type": "tower",
    "id_embedding": {"params": {"embedding_dim": 16, "sparse": True}, "init": {"type": "normal", "std": 0.02}},
    "feature_encoder": {"type": "mlp", "hidden_dims": [12], "activation": "relu", "output_dim": 16, "dropout": 0.2},
    "fusion": "gated",
    "output_dim": 16,
}


def project(**changes):
    document = {
        "experiment": {"name": "books", "seed": 3, "grid": {}},
        "data": {
            "root": "data",
            "books_limit": 30,
            "interactions_limit": 400,
            "min_user_interactions": 2,
            "feature_params": {"numeric_columns": ["price"], "category_top_k": 7, "user_aggregation": "mean"},
        },
        "model": {
            "user_encoder": ENCODER,
            "item_encoder": ENCODER,
            "similarity": "cosine",
            "device": "cpu",
            "adaptive_mimic": {"enabled": True, "init_std": 0.02},
        },
        "training": {
            "batch_size": 64,
            "num_epochs": 1,
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "optimizer": "AdamW",
            "negatives_per_positive": 5,
            "gradient_clip_norm": 1.0,
            "loss_weights": {"mimic_user": 0.2, "mimic_item": 0.3, "category_alignment": 0.01},
            "early_stopping": {"enabled": True, "metric": "recall@10", "mode": "max", "patience": 2},
            "checkpointing": {"enabled": True, "dir": "checkpoints"},
        },
        "evaluation": {"metrics_k": [5, 10], "candidate_samples": 20, "holdout": "latest_per_user"},
        "recommendations": {"sample_users": 2, "top_k": 5},
        "diagnostics": {"user_sample_size": 100, "neighbor_k": 5, "report_path": "report.md"},
        "logging": {"level": "INFO"},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        document[section] = {**document[section], name: value}
    return document


def test_a_flat_config_with_all_its_encoders_is_translated_and_trains():
    config, notes = load_config(FLAT_CONFIG)
    assert config.features["text"].type == "hashed" and config.features["text"].pool_group
    assert config.features["categorical"].options() == {"hash_buckets": 64}
    assert config.features["image"].type == "cnn"
    assert config.features["history"].options() == {"block": "gru", "window": 9}
    assert config.negative_ratio == 1 and config.training.scheduler.type == "linear"
    message = " ".join(notes)
    assert "'print_every' has no counterpart and is left out: each epoch is printed." in message
    assert "'continuous_encoder_config.normalize' has no counterpart" in message and "'plateau'" in message
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    assert recommender.model.scorer.item.fusion.type == "attention"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"model_type": "vit", "pretrained": False}, {"type": "torchvision", "model": "vit_b_16", "weights": None}),
        ({"model_name": "resnet50", "freeze": True}, {"type": "torchvision", "model": "resnet50", "frozen": True}),
        ({"aggregation_strategy": "average"}, {"type": None, "pool_group": True}),
    ],
)
def test_image_encoders_of_a_flat_config(options, wanted):
    found = load_config({"image_encoder_config": options, "num_epochs": 1})[0].features["image"]
    assert {**found.options(), "type": found.type, "pool_group": found.pool_group} == {"pool_group": False, **wanted}


def test_a_transformer_of_a_flat_config_is_a_sentence_encoder():
    options = {"model_name": "bert-base-uncased", "freeze_bert": False, "max_length": 64}
    found = load_config({"text_encoder_config": options})[0].features["text"]
    assert found.type == "sentence"
    assert found.options() == {"model": "bert-base-uncased", "frozen": False, "max_tokens": 64}


def test_a_config_of_the_two_tower_project_is_translated_and_trains(tmp_path):
    (tmp_path / "books.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(project()))))
    config, notes = load_config(tmp_path / "books.yaml")
    assert (config.name, config.seed, config.dim, config.encoder_dim) == ("books", 3, 16, None)
    assert (config.data.max_items, config.data.max_interactions, config.data.min_user_interactions) == (30, 400, 2)
    assert config.features["categorical"].options() == {"max_categories": 7}
    assert config.features["history"].type == "aggregates"
    for side, mimic in (("user", 0.2), ("item", 0.3)):
        features, fusion = config.tower(side)
        assert fusion.type == "adaptive_mimic"
        assert fusion.options() == {"hidden_dims": [12], "dropout": 0.2, "layer_norm": False, "mimic": mimic}
        assert features["identity"].options() == {"init_std": 0.02}
    assert config.interaction.type == "cosine" and config.loss.type == "bce" and config.negatives.type == "uniform"
    assert config.negative_ratio == 5 and config.split.protocol == "leave_last_out"
    training = config.training
    assert (training.epochs, training.batch_size, training.gradient_clip) == (1, 64, 1)
    assert (training.metric, training.patience, training.device) == ("recall@10", 2, "cpu")
    assert (training.optimizer.type, training.optimizer.weight_decay) == ("adamw", 0.01)
    assert (config.evaluation.k, config.evaluation.candidate_samples) == ([5, 10], 20)
    assert (config.evaluation.diagnostics.examples, config.evaluation.diagnostics.neighbours) == (2, 5)
    message = " ".join(notes)
    assert "'model.user_encoder.id_embedding.params.sparse' has no counterpart" in message
    assert "'data.root' has no counterpart and is left out: give the data by --data." in message
    write_json(small_dataset(), tmp_path / "data.json")
    dataset = Dataset.read(tmp_path / "data.json", config.data)
    recommender = Recommender.from_config(config).fit(dataset, progress=False)
    assert len(recommender.recommend(None, 5)) == 5 * len(dataset.users)


def test_every_key_of_the_project_is_noted():
    notes = " ".join(translate(project()).notes)
    for key in ("experiment.grid", "data.books_limit", "logging.level", "training.checkpointing.dir"):
        assert f"'{key}'" in notes
    made = translate(project(training__weight_decay=0.0, evaluation__faiss={"enabled": True, "batch_size": 9}))
    assert made.document["user"]["features"]["identity"]["sparse"] is True
    assert made.document["index"] == {"type": "faiss", "kind": "flat"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"fusion": "sum"}, {"type": "sum"}),
        ({"fusion": "concat"}, {"type": "simple", "hidden_dims": [12], "layer_norm": False, "dropout": 0.2}),
        ({"fusion": "concat", "feature_encoder": {"type": "linear"}}, {"type": "concat"}),
    ],
)
def test_fusions_of_the_project(changes, wanted):
    found = translate(project(model__user_encoder={**ENCODER, **changes}))
    assert found.document["user"]["fusion"] == wanted


def test_a_tower_of_ids_alone_and_switches_of_the_project():
    encoder = {"type": "embedding", "params": {"embedding_dim": 16, "max_norm": 2.0}}
    training = {"early_stopping": {"enabled": False}, "negatives_per_positive": 2, "num_epochs": 1}
    document = project(model__user_encoder=encoder, model__adaptive_mimic={"enabled": False}, training__x=None)
    document["training"], document["data"] = training, {"books_limit": None}
    config, _ = load_config(document)
    assert config.training.patience is None and config.training.optimizer.max_norm == 2
    assert config.tower("item")[1].options()["mimic"] == 0
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    assert [name for name in fitted.model.scorer.user.features if name.startswith(("text", "categorical"))] == []


def test_faults_name_the_key_of_the_project():
    with pytest.raises(ConfigError) as error:
        load_config(project(data__books_limt=3, training__num_epoch=2, evaluation__holdout="random"))
    message = str(error.value)
    for text in ("/data/books_limt", "Did you mean 'data.books_limit'", "/training/num_epoch", "/evaluation/holdout"):
        assert text in message
    with pytest.raises(ConfigError, match=r"/training/epochs.*It is from 'training\.num_epochs'"):
        load_config(project(training__num_epochs="many"))
    wrong = {**ENCODER, "feature_encoder": {"type": "mlp", "hidden_dims": "many"}}
    with pytest.raises(ConfigError, match=r"It is from 'model\.item_encoder\.feature_encoder\.hidden_dims'"):
        load_config(project(model__item_encoder=wrong))
    with pytest.raises(ConfigError, match="the vectors of users have 16 dimensions, those of items 8"):
        other = {**ENCODER, "id_embedding": {"params": {"embedding_dim": 8}}}
        load_config(project(model__item_encoder=other))
    with pytest.raises(ConfigError, match=r"/model/user_encoder/fusion: unknown fusion 'gate'\. Did you mean 'gated'"):
        load_config(project(model__user_encoder={**ENCODER, "fusion": "gate"}))
    for changed, message in (
        ({"type": "towr"}, "Did you mean 'tower'"),
        ({"feature_encoder": {"type": "mpl"}}, "Did you mean 'mlp'"),
        ({"id_embedding": {"params": {"sparse": "yes"}}}, "expected true or false; found 'yes'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(project(model__user_encoder={**ENCODER, **changed}))
    with pytest.raises(ConfigError, match="/experiment: expected an object; found 'x'"):
        load_config({**project(), "experiment": "x"})


def test_keys_of_the_current_format_win_also_if_they_are_set_by_the_command_line():
    overrides = ["training.epochs=9", "split.protocol=random", "loss.type=bpr", "dim=8"]
    config, notes = load_config(project(), overrides)
    assert (config.training.epochs, config.split.protocol, config.loss.type, config.dim) == (9, "random", "bpr", 8)
    assert "'evaluation.holdout' is not used, as 'split.protocol' is set: 'random'." in notes
    flat, _ = load_config(FLAT_CONFIG, ["training.epochs=9", "loss.type=bpr"])
    assert flat.training.epochs == 9 and flat.loss.type == "bpr"


def test_a_config_of_ours_with_such_a_key_keeps_the_usual_error():
    assert not is_of_the_project({"training": {"num_epochs": 3, "optimizer": {"type": "adam"}}})
    with pytest.raises(ConfigError, match="/training/num_epochs: unknown key"):
        load_config({"training": {"num_epochs": 3}})


def test_the_page_for_newcomers_names_every_key():
    """A key of a section may be named by its last part; `*_dropout` stands for the keys of all sides."""
    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`\n]+)`", page))
    flat = {re.sub(r"^(user|item|interaction)_", "*_", key) for key in FLAT}
    flat |= {re.sub(r"^[a-z]+_encoder_config", "*_encoder_config", key) for key in flat}
    wanted = {key for key in flat if not key.endswith("_encoder_config")} | {"*_encoder_config"}
    wanted |= (
        set(FLAT_LEFT_OUT) | set(OPTIONS_LEFT_OUT) | {option for names in ENCODER_OPTIONS.values() for option in names}
    )
    assert sorted(wanted - named) == []
    assert sorted(key for key in KNOWN if not {key, key.split(".")[-1], ".".join(key.split(".")[-2:])} & named) == []
