"""Changes of a fitted model's config: keys that can change after training, and refusal of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anyrec.core.check_config import config_faults
from anyrec.core.config import Config
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.registry import Registry
from anyrec.core.strict_json import pointer
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show
from anyrec.data.checks.config_fits import category_faults
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import merged
from anyrec.model.check_index import index_faults

CHANGEABLE = (
    "pipeline",
    "evaluation",
    "index",
    "update",
    "serving",
    "card",
    "feast",
    "data.strict",
    "data.image_root",
    "data.allow_urls",
    "data.allow_outside_root",
)
"""Keys that are read after training."""
OF_THE_RUN = ("name", "output_dir", "plugins", "defaults", "training.device", "data.sources", "cluster")
"""Keys of the training run that say nothing of the model. They are ignored, so that the config of the run can be given
again."""


def changed_config(config: Config, changes: Config, registry: Registry, dataset: Dataset) -> Config:
    """Return the config of a fitted model with the changes that another config makes.

    Keys that `changes` does not set are kept. A named `index` replaces the former one with all of its options.

    Args:
        config: The complete config of the model.
        changes: The config with the changes. It may set keys that were used for training to the same values.
        registry: The components.
        dataset: The users and items that the model knows.

    Raises:
        ConfigError: With every key that cannot change after training, and the faults of the result.
    """
    own, given = config.model_dump(mode="json"), changes.model_dump(mode="json", exclude_unset=True)
    faults = [_refusal(*one) for one in _differing(given, own, ()) if not _starts(one[0], (*CHANGEABLE, *OF_THE_RUN))]
    if faults:
        raise ConfigError(faults)
    for key in OF_THE_RUN:
        _remove(given, key.split("."))
    if "type" in given.get("index", {}):
        own.pop("index")
    result = Config.model_validate(merged(given, own))
    # The metric of the training is not measured any more, so its cut-off need not be one of `evaluation.k`.
    faults = [fault for fault in config_faults(result, registry) if fault.where != "/training/metric"]
    faults += category_faults(result, dataset)
    if not faults and result.index != config.index:
        faults = index_faults(result, registry)
    if faults:
        raise ConfigError(faults)
    return result


def _differing(given: Json, own: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json, Json]]:
    """Yield path, value in `own` and value in `given` of every value of `given` that `own` does not have."""
    if isinstance(given, dict) and isinstance(own, dict):
        for key, value in given.items():
            if key in own:
                yield from _differing(value, own[key], (*path, key))
            else:
                yield (*path, key), None, value
    elif given != own:
        yield path, own, given


def _starts(path: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    """Return whether a path is one of the keys or is inside one of them."""
    return any(path[: len(parts)] == parts for parts in (tuple(key.split(".")) for key in keys))


def _refusal(path: tuple[str, ...], own: Json, given: Json) -> Fault:
    what = f"{'.'.join(path)} cannot change after training: the model has {show(own)}, this config {show(given)}."
    hint = f"Leave it out, or train again. What can change: {', '.join(CHANGEABLE)}."
    return Fault(pointer(path), what, hint, "trained")


def _remove(document: JsonObject, path: Sequence[str]) -> None:
    """Remove a key from nested dicts, if it is there."""
    *parents, last = path
    place: Json = document
    for part in parents:
        place = place.get(part) if isinstance(place, dict) else None
    if isinstance(place, dict):
        place.pop(last, None)
