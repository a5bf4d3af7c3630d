"""A config fitted to the data: a value for every key that is not set. docs/defaults.md has the measurements."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anyrec.core.config import MAX_DIM, Config, DataConfig
from anyrec.core.config.components import DEFAULT_CHOICES, KIND_OF_KEY
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject
from anyrec.data.checks.temporal_roles import temporal_names
from anyrec.data.dataset import Dataset
from anyrec.data.interpretation import interpretation
from anyrec.data.order import order_matters
from anyrec.data.suggest_set import MOST_CELLS, set_dim, suggest_set

SHORTEST = 5
"""The mean number of interactions of a user from which their order is learned."""
STEPS = 1000
"""The steps in which a sequence model learns a small data set."""
MANY = 500_000
"""The number of interactions from which four layers learn more than two."""
LEAST_EPOCHS = {2: 10, 4: 14}
"""The fewest epochs, by the number of layers."""
SHORT = 20
"""Users with fewer interactions on average have short histories, on which a sequence model overfits."""
SHORT_STEPS = 600
"""The steps in which a sequence model learns a small data set of short histories."""
SHORT_EPOCHS = 6
"""The fewest epochs on short histories."""
LEAST_PATIENCE = 3
"""The fewest validations without a better one that stop a sequence model, else a quarter of its epochs."""
DECAY_EPOCHS = 11
"""On short histories, the epochs after which weight decay alone would reduce a weight to 1/e."""
WINDOWS = (20, 50, 100, 200)
"""Lengths of histories to choose from, in events."""
MOST_ITEMS = 20_000
"""The most items for a loss that compares with the whole catalogue at each step."""


def suggest_config(
    dataset: Dataset, path: Path | None = None, asked: JsonObject | None = None, registry: Registry | None = None
) -> tuple[JsonObject, list[str]]:
    """Suggest a config for a dataset.

    Args:
        dataset: The data.
        path: The data's file, after which the run is named.
        asked: The config document as the user wrote it. Suggestions agree with what it sets: epochs with its batch
            size, negatives with its loss, no user history if it switches that off.
        registry: The components; needed if `asked` names an interaction or a sampler.

    Returns:
        Only the suggestions, as JSON, and why each was made. `anyrec.data.defaults.merged` puts them under `asked`.
    """
    init, asked = asked is None, asked or {}
    interactions, users, items = len(dataset.interactions), len(dataset.users), len(dataset.items)
    groups = sorted({name.split(".")[0] for side in ("user", "item") for name in dataset.features(side)})
    reasons = [f"groups found: {', '.join(groups) or 'none, so ids alone'}"]
    config: JsonObject = {}
    if path is not None:
        config["name"] = "".join(c if c.isalnum() or c in "_.-" else "_" for c in path.stem) or "model"
    config["dim"] = _dim(asked, 32 if interactions < 20_000 else 64 if interactions < 5_000_000 else 128)
    lengths = np.bincount(dataset.user_rows, minlength=users)
    lengths = lengths[lengths > 0]
    _histories(config, reasons, dataset, lengths, asked, _without_order(asked, registry))
    batch = _set(asked, "training", "batch_size") or config["training"]["batch_size"]
    reasons.append(f"dim {_set(asked, 'dim') or config['dim']}, batch {batch}: {interactions:,} interactions")
    _loss(config, reasons, len(lengths), items, asked, registry)
    if users and interactions / users < SHORTEST and _set(asked, "id_dropout") is None:
        config["id_dropout"] = 0.3
        reasons.append("id_dropout 0.3: users have few interactions, so features matter more than ids")
    if registry is not None:
        for place in ("fusion", "negatives"):
            _take_options(config, place, asked, registry)
    if _sparse(asked) and "optimizer" in config["training"]:
        del config["training"]["optimizer"]["weight_decay"]
    roles = known_roles(dataset)
    if roles:
        config["data"] = {"roles": roles}
        reasons.append("temporal roles as inferred: check them")
    for finding in interpretation(dataset, DataConfig()) if init else ():
        check = "" if finding.level == "note" else "please check: "
        reasons.append(f"{check}{finding.text} {finding.advice}".rstrip())
    return config, reasons


def known_roles(dataset: Dataset) -> dict[str, str]:
    """Return the roles of the temporal features that the data have."""
    names = set(temporal_names(dataset.users, dataset.items))
    return {name: role for name, role in sorted(dataset.roles.items()) if name in names}


def _histories(
    config: JsonObject, reasons: list[str], dataset: Dataset, lengths: np.ndarray, asked: JsonObject, closed: str
) -> None:
    """Suggest how users are represented: by sequences, by sets of items, or by ids alone.

    Args:
        config: Gets the suggestion.
        reasons: Gets the reasons.
        dataset: The data.
        lengths: (users,) the number of interactions of each user who has any.
        asked: The config document as the user wrote it.
        closed: Why it allows no history; empty if it does.
    """
    timed = dataset.column("timestamp") is not None
    own = _history_options(asked)
    why = "" if own and own.get("type") != "set" else _no_order(dataset, lengths, timed, own)
    if timed and len(lengths) and lengths.mean() >= SHORTEST and not closed and not why:
        _sequence(config, reasons, dataset, lengths, asked)
    elif closed or not why:
        _two_tower(config, reasons, lengths, closed or "the config sets how histories are read")
    else:
        config["dim"] = _dim(asked, set_dim(len(dataset.interactions)))
        suggest_set(
            config,
            reasons,
            lengths,
            len(dataset.items),
            bool(dataset.features("user")),
            why=why,
            batch=_set(asked, "training", "batch_size"),
            epochs=_set(asked, "training", "epochs"),
            own_history=_set(asked, "user", "features", "history") is not None,
            keep_id=bool((_set(asked, "features", "identity") or {}).get("graph_layers")),
        )
        if _set(asked, "pipeline", "rank") is None and not asked.get("heads"):  # they need the validation part
            config["training"]["refit"] = True
            reasons.append("trained again on the training and validation parts: without order that is quick")


def _sequence(config: JsonObject, reasons: list[str], dataset: Dataset, lengths: np.ndarray, asked: JsonObject) -> None:
    """Suggest a causal transformer and a recency-weighted mean over what users did, instead of user ids."""
    own = _set(asked, "user", "features", "history")
    wanted = own or _set(asked, "features", "history") or {}
    longest = float(np.quantile(lengths, 0.75))
    window = wanted.get("window") or next((size for size in WINDOWS if size >= min(longest, 100)), 100)
    events = int(lengths.sum())
    layers = wanted.get("layers") or (4 if events >= MANY else 2)
    history: JsonObject = {"type": "history", "window": window, "layers": layers, "hidden": 2}
    if (_set(asked, "encoder_dim") or _set(asked, "dim") or config["dim"]) % 2:
        history["heads"] = 1  # the fixed default, 2, would not divide it
    types = dataset.column("interaction_type")
    if types is not None and len(types.unique().drop_null()) > 1:
        history["use_kind"] = True
    if wanted.get("block", "transformer") in ("transformer", "gru"):
        history["fields"] = {"recent": {"block": "mean"}}
    config["features"] = {"identity": {"type": "identity", "init_std": 0.02}}
    config["user"] = {"features": {}}
    (config["features"] if own is None else config["user"]["features"])["history"] = history
    if not (_set(asked, "features", "identity") or {}).get("graph_layers"):
        config["user"]["features"]["identity"] = None
    config["fusion"] = {"type": "residual"}
    if dataset.features("user"):
        config["history_dropout"] = 0.1
    if "history_dropout" in config and _set(asked, "history_dropout") is None:
        reasons.append("history_dropout 0.1: users have features, which the model needs for people without a history")
    block = wanted.get("block", "transformer")
    name = f"a {block} of {layers} layers" if block != "mean" else "a recency-weighted mean"
    besides = " and a recency-weighted mean" if "fields" in history else ""
    reasons.append(
        f"history by {name}{besides} over the last {window} interactions, instead of user ids: users have "
        f"{lengths.mean():.0f} on average, with times"
    )
    batch = _set(asked, "training", "batch_size") or max(8 * window // 2, min(3200, events // 100))
    _schedule(config, reasons, lengths, batch, layers, asked)


def _schedule(
    config: JsonObject, reasons: list[str], lengths: np.ndarray, batch: int, layers: int, asked: JsonObject
) -> None:
    """Suggest the epochs and the optimizer of a sequence model, and stronger regularisation for short histories.

    The effect of weight decay depends on the learning rate times the steps, so it is chosen by the steps of an epoch.

    References:
        Wang and Aitchison, How to Set AdamW's Weight Decay as You Scale Model and Dataset Size, 2024.
    """
    events, rate, decay = int(lengths.sum()), 0.003, 0.01
    least, steps = LEAST_EPOCHS[4 if layers >= 4 else 2], STEPS
    if lengths.mean() < SHORT:
        least, steps = SHORT_EPOCHS, SHORT_STEPS
        decay = min(1.0, float(f"{batch / (DECAY_EPOCHS * rate * events):.2g}"))
        side = config["features"] if "history" in config["features"] else config["user"]["features"]
        side["history"]["dropout"] = 0.5
        reasons.append(f"dropout 0.5 and weight decay {decay:g}: with short histories, the model overfits without them")
    epochs = max(least, min(40, round(steps * batch / events)))
    config["training"] = {
        "epochs": epochs,
        "batch_size": batch,
        "average_epochs": 1,
        "optimizer": {"type": "adamw", "learning_rate": rate, "weight_decay": decay},
        "scheduler": {"type": "linear", "warmup": 0.05},
    }
    if _set(asked, "training", "epochs") is None:
        patience = max(LEAST_PATIENCE, epochs // 4)
        config["training"]["patience"] = patience
        reasons.append(
            f"up to {epochs} epochs with a falling learning rate, stopped after {patience} validations that are not "
            "better; the running average of the weights is kept"
        )


def _two_tower(config: JsonObject, reasons: list[str], lengths: np.ndarray, why: str) -> None:
    """Suggest ids and features without order."""
    interactions = int(lengths.sum())
    batch = 256 if interactions < 20_000 else 1024 if interactions < 500_000 else 4096
    epochs = max(10, min(60, round(2_000_000 / max(1, interactions))))
    config["training"] = {"epochs": epochs, "batch_size": min(batch, max(32, interactions // 20))}
    reasons.append(f"no order to learn from: {why}")
    reasons.append(f"up to {epochs} epochs, stopped when validation no longer improves")


def _loss(
    config: JsonObject, reasons: list[str], users: int, items: int, asked: JsonObject, registry: Registry | None
) -> None:
    """Suggest a loss over the whole catalogue, or over sampled negatives.

    The former needs a small catalogue and a config that allows it. A set model scores the catalogue once for each user
    and epoch, so its catalogue can be larger.
    """
    loss, named = _set(asked, "loss", "type"), _set(asked, "negatives", "type")
    ratio = _set(asked, "negative_ratio") is not None
    if ratio and named is None:
        config["negatives"] = {"type": "uniform"}  # the fixed default and `shared` have no ratio
    if loss not in (None, "softmax"):
        return
    sequence = "user" in config
    drawn = ratio or named is not None or bool(_options(asked, "negatives"))
    factorised = _is_factorised(asked, registry)
    sets = config.get("interaction", {}).get("type") == "cosine"
    if loss is None and not drawn and factorised and (items <= MOST_ITEMS or (sets and users * items <= MOST_CELLS)):
        config["loss"] = {"type": "full_softmax"}
        reasons.append(f"full softmax: {items:,} items are few enough to compare with all of them")
        return
    why = f"{items:,} items are too many to compare with all" if items > MOST_ITEMS else "as the config sets it"
    config["loss"] = {"type": "softmax"}
    shared = {"type": "shared", "size": 2048, "alpha": 0.5}
    config.setdefault("negatives", shared if sequence and factorised else {"type": "in_batch"})
    drawn_by = (
        f"'{named or 'uniform'}' negatives"
        if named or ratio
        else "2,048 negatives a step"
        if sequence and factorised
        else "in-batch negatives"
    )
    reasons.append(f"softmax over {drawn_by}: {why}")


def _history_options(asked: JsonObject) -> JsonObject:
    """Return what the user set for histories."""
    return _set(asked, "user", "features", "history") or _set(asked, "features", "history") or {}


def _no_order(dataset: Dataset, lengths: np.ndarray, timed: bool, own: JsonObject) -> str:
    """Return why the order of interactions is not learned; empty if it is."""
    if own.get("type") == "set":
        return "the config sets it"
    if not timed:
        return "no interaction has a time"
    if not len(lengths) or lengths.mean() < SHORTEST:
        return "users have few interactions"
    return "" if order_matters(dataset) else "which item follows another is as if at random"


def _without_order(asked: JsonObject, registry: Registry | None) -> str:
    """Return why no history may be suggested with what the user set; empty if it may."""
    for place in (("user", "features"), ("features",)):
        features = _set(asked, *place) or {}
        if "history" in features:
            choice = features["history"]
            if choice is None:
                return "the config switches histories off"
            if choice.get("type") not in (None, "history", "set"):
                return f"the config reads histories by '{choice['type']}'"
            break
    if (_set(asked, "user", "fusion", "type") or _set(asked, "fusion", "type")) == "identity":
        return "the fusion 'identity' takes one feature"
    sampler = _set(asked, "negatives", "type")
    if registry is not None and sampler and registry.get("sampler", sampler).labelled:
        return f"negatives '{sampler}' learn from single labels"
    return ""


def _take_options(config: JsonObject, place: str, asked: JsonObject, registry: Registry) -> None:
    """Choose the component whose options the user set, if the config names no type."""
    own = _options(asked, place)
    if not own or _set(asked, place, "type") is not None:
        return
    fixed = Config.model_fields[place].get_default(call_default_factory=True).type
    chosen = config.get(place, {"type": fixed})
    for name in dict.fromkeys([chosen["type"], *DEFAULT_CHOICES[place]]):
        if registry.has_options(KIND_OF_KEY[place], name, own):
            config[place] = chosen if name == chosen["type"] else {"type": name}
            return


def _options(asked: JsonObject, place: str) -> JsonObject:
    """Return the component's own options that the user set, without the keys that every component of the place has."""
    keys = Config.model_fields[place].get_default(call_default_factory=True).__class__.model_fields
    return {key: value for key, value in (_set(asked, place) or {}).items() if key not in keys}


def _dim(asked: JsonObject, fitted: int) -> int:
    """Return `fitted`, or the fixed default if a number of attention heads that the user set divides only that."""
    fixed = Config.model_fields["dim"].default
    broken = any(fitted % heads and not fixed % heads for heads in _heads(asked))
    return min(MAX_DIM, fixed if broken else fitted)


def _heads(document: Json) -> Iterator[int]:
    """Yield the numbers of attention heads anywhere in a document."""
    for key, value in document.items() if isinstance(document, dict) else ():
        if key in ("heads", "num_heads") and isinstance(value, int) and value > 0:
            yield value
        yield from _heads(value)


def _is_factorised(asked: JsonObject, registry: Registry | None) -> bool:
    """Return whether scores are dot products, so that one matrix product compares with all items."""
    name = _set(asked, "interaction", "type")
    return name is None or registry is None or bool(registry.get("interaction", name).factorised)


def _sparse(asked: JsonObject) -> bool:
    """Return whether the user asks for sparse gradients, which exclude weight decay."""
    if _set(asked, "training", "optimizer", "sparse") is True:
        return True
    places = (("features",), ("user", "features"), ("item", "features"))
    choices = [choice for place in places for choice in (_set(asked, *place) or {}).values() if choice]
    own = [field for choice in choices for field in choice.get("fields", {}).values() if field]
    return any(choice.get("sparse") is True for choice in [*choices, *own])


def _set(asked: JsonObject, *path: str) -> Json:
    """Return what the user set at a key, otherwise None."""
    found: Json = asked
    for part in path:
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return copy.copy(found)
