"""Translation of the older config format, which has flat keys, to the current format."""

from __future__ import annotations

import re

from anyrec.core.config import Config
from anyrec.core.errors import ConfigError, did_you_mean
from anyrec.core.translation import Translation
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show

SIDES = ("user", "item", "interaction")
"""Prefixes of the older format's keys about attention."""
ATTENTION = {
    "num_attention_layers": "num_layers",
    "num_heads": "num_heads",
    "dropout": "dropout",
    "use_cls_token": "use_cls_token",
    "use_layer_norm": "use_layer_norm",
}
LOSSES = {"bce": "bce", "contrastive": "infonce", "combined": "combined", "focal": "focal", "triplet": "triplet"}
PLACES = {
    "embedding_dim": "dim",
    "batch_size": "training.batch_size",
    "num_epochs": "training.epochs",
    "learning_rate": "training.optimizer.learning_rate",
    "seed": "seed",
    "model_name": "name",
}
GROUPS = ("text", "categorical", "continuous", "image", "temporal")
ENCODER_OPTIONS = {
    "text": {
        "freeze_bert": "frozen",
        "model_name": "model",
        "model": "model",
        "freeze": "frozen",
        "frozen": "frozen",
        "max_length": "max_tokens",
    },
    "categorical": {
        "min_count": "min_count",
        "hash_buckets": "hash_buckets",
        "hash_vocab_size": "hash_buckets",
        "max_categories": "max_categories",
    },
    "continuous": {"encoding": "encoding", "bins": "bins"},
    "image": {
        "model_name": "model",
        "model": "model",
        "pretrained": "weights",
        "freeze": "frozen",
        "frozen": "frozen",
        "image_size": "size",
        "size": "size",
    },
    "temporal": {"pooling": "pooling", "max_length": "max_length", "hidden_dim": "hidden_dim"},
}
LEFT_OUT = {"print_every": "each epoch is printed"}
"""Keys without a counterpart, and why."""
OPTIONS_LEFT_OUT = {
    **dict.fromkeys(("embedding_dim", "output_dim"), "all features have vectors of `encoder_dim`"),
    **dict.fromkeys((f"num_{group}_fields" for group in ("text", "categorical", "image")), "the data say it"),
    "normalize": "numbers are always standardised",
}
"""Options of encoders without a counterpart, and why."""
WORD_VECTORS = re.compile(r"(glove|word2vec|fasttext)\b", re.IGNORECASE)
"""Names of pretrained word vectors."""
BLOCKS = {"mean_pooling": "mean", "mean": "mean", "lstm": "gru"}
"""The sequence model of `features.history` for each `aggregation_strategy` of items that users had before."""
OTHERS = (
    "negative_sampling_ratio",
    "loss_type",
    "train_split",
    "optimizer_type",
    "scheduler_type",
    "classifier_hidden_dims",
    "classifier_dropout",
)
KNOWN = {
    *PLACES,
    *LEFT_OUT,
    *OTHERS,
    *(f"{group}_encoder_config" for group in GROUPS),
    *(f"{side}_{key}" for side in SIDES for key in ("use_simple_fusion", *ATTENTION)),
}


def is_legacy(document: JsonObject) -> bool:
    """Return True if a config has a key that only the older format has."""
    return bool(set(document) & (KNOWN - {"seed"}))


def translate(document: JsonObject) -> Translation:
    """Translate a config in the older format.

    Args:
        document: The config as parsed JSON. Keys of the current format stay as they are.

    Raises:
        ConfigError: With a fault for each unknown key and each value that cannot be translated.
    """
    made = Translation()
    for key, value in document.items():
        if key in PLACES:
            made.put(key, PLACES[key], value)
        elif key in LEFT_OUT:
            made.leave_out(key, LEFT_OUT[key])
        elif key not in KNOWN:
            if key in Config.model_fields:
                made.keep(key, value)
            else:
                made.fault(key, "unknown key.", did_you_mean(key, KNOWN), "unknown key")
    _fusions(document, made)
    _training(document, made)
    for group in GROUPS:
        if f"{group}_encoder_config" in document:
            _encoder(group, document[f"{group}_encoder_config"], made)
    if made.faults:
        raise ConfigError(made.faults)
    return made


def _fusions(document: JsonObject, made: Translation) -> None:
    """Translate the fusion of each side, and the interaction."""
    for side in SIDES:
        attention = document.get(f"{side}_use_simple_fusion") is False
        place = "interaction" if side == "interaction" else f"{side}.fusion"
        if f"{side}_use_simple_fusion" in document:
            simple = "mlp" if side == "interaction" else "simple"
            made.put(f"{side}_use_simple_fusion", f"{place}.type", "attention" if attention else simple)
        for key, option in ATTENTION.items():
            if (
                f"{side}_{key}" in document
                and (attention or key == "dropout")
                and (side != "interaction" or option[:3] != "use")
            ):
                if not attention and f"{side}_use_simple_fusion" not in document:
                    made.put(f"{side}_{key}", f"{place}.type", "mlp" if side == "interaction" else "simple")
                made.put(f"{side}_{key}", f"{place}.{option}", document[f"{side}_{key}"])
    if document.get("interaction_use_simple_fusion") is not False and "classifier_hidden_dims" in document:
        made.put("classifier_hidden_dims", "interaction.type", "mlp")
        made.put("classifier_hidden_dims", "interaction.hidden_dims", document["classifier_hidden_dims"])
        if "classifier_dropout" in document:
            made.put("classifier_dropout", "interaction.dropout", document["classifier_dropout"])


def _training(document: JsonObject, made: Translation) -> None:
    """Translate the loss, the negatives, the optimizer and the split."""
    if "loss_type" in document:
        name = document["loss_type"]
        if not isinstance(name, str) or name not in LOSSES:
            made.fault("loss_type", f"unknown loss {show(name)}.", did_you_mean(str(name), LOSSES))
        else:
            made.put("loss_type", "loss.type", LOSSES[name])
            if name != "contrastive":
                made.put("loss_type", "negatives.type", "uniform")
    if "negative_sampling_ratio" in document:
        ratio = _whole(document["negative_sampling_ratio"])
        why = "" if ratio == document["negative_sampling_ratio"] else "rounded"
        made.put("negative_sampling_ratio", "negative_ratio", ratio, why)
    if "optimizer_type" in document:
        made.put("optimizer_type", "training.optimizer.type", str(document["optimizer_type"]).lower())
    if "scheduler_type" in document:
        name = "constant" if document["scheduler_type"] in (None, "none") else str(document["scheduler_type"]).lower()
        if name in ("plateau", "step"):
            made.put("scheduler_type", "training.scheduler.type", "linear", f"there is no {name!r}")
        else:
            made.put("scheduler_type", "training.scheduler.type", name)
    if "train_split" in document:
        share = document["train_split"]
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            made.fault("train_split", f"expected a share above 0 and up to 1; found {show(share)}.")
        else:
            made.put("train_split", "split.protocol", "random")
            made.put("train_split", "split.validation", round((1 - share) / 2, 6))
            made.put("train_split", "split.test", round((1 - share) / 2, 6))


def _whole(ratio: Json) -> Json:
    """Return a ratio of negatives as the nearest whole number, at least 1; another value as it is."""
    is_number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool) and ratio == ratio and ratio > 0
    return max(1, round(ratio)) if is_number and ratio < 1e9 else ratio


def _encoder(group: str, options: Json, made: Translation) -> None:
    """Translate the options of the encoder of one group."""
    key, place = f"{group}_encoder_config", f"features.{group}"
    if options is None:
        made.put(key, place, None)
        return
    if not isinstance(options, dict):
        made.fault(key, f"expected an object or null; found {show(options)}.")
        return
    options, names = dict(options), ENCODER_OPTIONS[group]
    model = options.get("model_name", options.get("model"))
    if group == "text" and isinstance(model, str) and WORD_VECTORS.match(model):
        made.put(f"{key}.model_name", f"{place}.type", "hashed", "words get vectors of their own instead of fixed ones")
        options = {name: value for name, value in options.items() if name not in ("model_name", "model", "max_length")}
    elif group == "text" and model is not None:
        made.put(key, f"{place}.type", "sentence")
    elif group == "image" and options.get("model_type") == "cnn":
        made.put(f"{key}.model_type", f"{place}.type", "cnn")
        options = {name: value for name, value in options.items() if name not in ("model_type", "pretrained")}
    elif group == "image" and options.get("model_type") == "vit" and model is None:
        made.put(f"{key}.model_type", f"{place}.type", "torchvision")
        made.put(f"{key}.model_type", f"{place}.model", "vit_b_16")
        del options["model_type"]
    elif group == "image" and model is not None:
        made.put(key, f"{place}.type", "torchvision")
    if group == "temporal" and options.pop("enable_item_lookup", False):
        block = BLOCKS.get(str(options.pop("aggregation_strategy", "attention")), "transformer")
        made.put(f"{key}.enable_item_lookup", "features.history.block", block)
        if "max_sequence_length" in options:
            made.put(f"{key}.max_sequence_length", "features.history.window", options.pop("max_sequence_length"))
    for name, value in options.items():
        if name == "pretrained":
            made.put(f"{key}.{name}", f"{place}.weights", "DEFAULT" if value else None)
        elif name == "aggregation_strategy" and value in ("mean", "average"):
            made.put(f"{key}.{name}", f"{place}.pool_group", True)
        elif name in names:
            made.put(f"{key}.{name}", f"{place}.{names[name]}", value)
        else:
            made.leave_out(f"{key}.{name}", OPTIONS_LEFT_OUT.get(name, ""))
