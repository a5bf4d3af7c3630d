"""Translation of the older config format, which has flat keys, to the current format."""

from __future__ import annotations

from collections.abc import Callable

from anyrec.core.config import Config
from anyrec.core.errors import ConfigError, Fault, did_you_mean
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
    "negative_sampling_ratio": "negative_ratio",
    "seed": "seed",
    "model_name": "name",
}
GROUPS = ("text", "categorical", "continuous", "image", "temporal")
ENCODER_OPTIONS = {
    "text": {
        "model_name": "model",
        "model": "model",
        "freeze": "frozen",
        "frozen": "frozen",
        "max_length": "max_tokens",
    },
    "categorical": {"min_count": "min_count", "hash_buckets": "hash_buckets", "max_categories": "max_categories"},
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
OTHERS = (
    "loss_type",
    "train_split",
    "optimizer_type",
    "scheduler_type",
    "classifier_hidden_dims",
    "classifier_dropout",
)
KNOWN = {
    *PLACES,
    *OTHERS,
    *(f"{group}_encoder_config" for group in GROUPS),
    *(f"{side}_{key}" for side in SIDES for key in ("use_simple_fusion", *ATTENTION)),
}


def is_legacy(document: JsonObject) -> bool:
    """Return True if a config has a key that only the older format has."""
    return bool(set(document) & (KNOWN - {"seed"}))


def translate(document: JsonObject) -> tuple[JsonObject, list[str]]:
    """Translate a config in the older format.

    Args:
        document: The config as parsed JSON. Keys of the current format stay as they are.

    Returns:
        The config in the current format, and one note for each translated key.

    Raises:
        ConfigError: With a fault for each unknown key and each value that cannot be translated.
    """
    new: JsonObject = {}
    notes: list[str] = []
    faults: list[Fault] = []

    def put(key: str, place: str, value: Json) -> None:
        *parents, last = place.split(".")
        section = new
        for part in parents:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                faults.append(Fault(f"/{key}", f"it goes into '{place}', but '{part}' is {show(section)}."))
                return
        section[last] = value
        notes.append(f"'{key}' became '{place}': {value!r}.")

    for key, value in document.items():
        if key in PLACES:
            put(key, PLACES[key], value)
        elif key not in KNOWN:
            if key in Config.model_fields:
                old = new.get(key)
                new[key] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
            else:
                faults.append(Fault(f"/{key}", "unknown key.", did_you_mean(key, KNOWN), "unknown key"))
    _fusions(document, put)
    _training(document, put, faults)
    for group in GROUPS:
        if f"{group}_encoder_config" in document:
            _encoder(group, document[f"{group}_encoder_config"], put, notes, faults)
    if faults:
        raise ConfigError(faults)
    return new, notes


def _fusions(document: JsonObject, put: Callable[[str, str, Json], None]) -> None:
    for side in SIDES:
        attention = document.get(f"{side}_use_simple_fusion") is False
        place = "interaction" if side == "interaction" else f"{side}.fusion"
        if f"{side}_use_simple_fusion" in document:
            simple = "mlp" if side == "interaction" else "simple"
            put(f"{side}_use_simple_fusion", f"{place}.type", "attention" if attention else simple)
        for key, option in ATTENTION.items():
            if (
                f"{side}_{key}" in document
                and (attention or key == "dropout")
                and (side != "interaction" or option[:3] != "use")
            ):
                if not attention and f"{side}_use_simple_fusion" not in document:
                    put(f"{side}_{key}", f"{place}.type", "mlp" if side == "interaction" else "simple")
                put(f"{side}_{key}", f"{place}.{option}", document[f"{side}_{key}"])
    if document.get("interaction_use_simple_fusion") is not False and "classifier_hidden_dims" in document:
        put("classifier_hidden_dims", "interaction.type", "mlp")
        put("classifier_hidden_dims", "interaction.hidden_dims", document["classifier_hidden_dims"])
        if "classifier_dropout" in document:
            put("classifier_dropout", "interaction.dropout", document["classifier_dropout"])


def _training(document: JsonObject, put: Callable[[str, str, Json], None], faults: list[Fault]) -> None:
    if "loss_type" in document:
        if not isinstance(document["loss_type"], str) or document["loss_type"] not in LOSSES:
            faults.append(
                Fault(
                    "/loss_type",
                    f"unknown loss {show(document['loss_type'])}.",
                    did_you_mean(str(document["loss_type"]), LOSSES),
                )
            )
        else:
            put("loss_type", "loss.type", LOSSES[document["loss_type"]])
            if document["loss_type"] != "contrastive":
                put("loss_type", "negatives.type", "uniform")
    if "optimizer_type" in document:
        put("optimizer_type", "training.optimizer.type", str(document["optimizer_type"]).lower())
    if "scheduler_type" in document:
        name = document["scheduler_type"]
        put("scheduler_type", "training.scheduler.type", "constant" if name in (None, "none") else str(name).lower())
    if "train_split" in document:
        share = document["train_split"]
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            faults.append(Fault("/train_split", f"expected a share above 0 and up to 1; found {show(share)}."))
        else:
            put("train_split", "split.protocol", "random")
            put("train_split", "split.validation", round((1 - share) / 2, 6))
            put("train_split", "split.test", round((1 - share) / 2, 6))


def _encoder(
    group: str, options: Json, put: Callable[[str, str, Json], None], notes: list[str], faults: list[Fault]
) -> None:
    key = f"{group}_encoder_config"
    if options is None:
        put(key, f"features.{group}", None)
        return
    if not isinstance(options, dict):
        faults.append(Fault(f"/{key}", f"expected an object or null; found {show(options)}."))
        return
    names = ENCODER_OPTIONS[group]
    if group == "text" and ({"model_name", "model"} & set(options)):
        put(key, "features.text.type", "sentence")
    if group == "image" and ({"model_name", "model"} & set(options)):
        put(key, "features.image.type", "torchvision")
    for name, value in options.items():
        if name not in names:
            notes.append(f"'{key}.{name}' has no counterpart and is left out.")
        elif name == "pretrained":
            put(f"{key}.{name}", f"features.{group}.weights", "DEFAULT" if value else None)
        else:
            put(f"{key}.{name}", f"features.{group}.{names[name]}", value)
