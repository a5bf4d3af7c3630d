"""Defaults fitted to the data: what a config does not set is chosen by `anyrec.data.suggest_config`, key by key; what it sets stays."""

from __future__ import annotations

import copy
from typing import Any

from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.discovery import Registry
from anyrec.data.dataset import Dataset
from anyrec.data.suggest_config import known_roles, suggest_config


def resolve_config(config: Config, dataset: Dataset, registry: Registry) -> tuple[Config, list[str]]:
    """The complete config for `dataset`, which sets `defaults: fixed` and so reruns alone, and why keys were chosen.

    A key that `config` sets is never changed. Options that are suggested for a component are left out if the config
    names another `type`. With `defaults: fixed` the config comes back as it is.
    """
    if config.defaults == "fixed":
        return config, []
    asked = config.model_dump(mode="json", exclude_unset=True)
    suggested, reasons = {}, []
    if config.model.type == TWO_TOWER:
        suggested, reasons = suggest_config(dataset, None, asked, registry)
    suggested["data"] = {"roles": known_roles(dataset)}
    document = merged(merged(asked, suggested), _metric(config))
    return Config.model_validate({**document, "defaults": "fixed"}), reasons


def merged(asked: dict[str, Any], suggested: dict[str, Any]) -> dict[str, Any]:
    """`asked`, with every key of `suggested` that it does not set, at any depth.

    Where `asked` names a `type` that is not the suggested one, what is suggested beside that type is left out.
    """
    found = copy.deepcopy(asked)
    for key, value in suggested.items():
        if key not in found:
            found[key] = copy.deepcopy(value)
        elif isinstance(value, dict) and isinstance(found[key], dict) and same_type(found[key], value):
            found[key] = merged(found[key], value)
    return found


def same_type(asked: dict[str, Any], suggested: dict[str, Any]) -> bool:
    return asked.get("type") in (None, suggested.get("type"))


def _metric(config: Config) -> dict[str, Any]:
    """ndcg at that cut-off of `evaluation.k` that is nearest to the fixed default's, if the metric is not set."""
    if "metric" in config.training.model_fields_set:
        return {}
    nearest = min(config.evaluation.k, key=lambda k: abs(k - 10))
    return {"training": {"metric": f"ndcg@{nearest}"}}
