"""Defaults fitted to the data: `anyrec.data.suggest_config` chooses the keys that a config does not set."""

from __future__ import annotations

import copy

from anyrec.core.check_config import blend_faults
from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.effects import idle_keys, is_set, without
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.checks.config_fits import idle_with_data
from anyrec.data.dataset import Dataset
from anyrec.data.suggest_config import known_roles, suggest_config


def resolve_config(config: Config, dataset: Dataset, registry: Registry) -> tuple[Config, list[str]]:
    """Complete a config for a dataset.

    A key that `config` sets is never changed. Options that are suggested for a component are left out if the config
    names another `type`, and so are keys that have no effect with what it sets. With `defaults: fixed` the
    config is returned as it is.

    Args:
        config: The config.
        dataset: The data.
        registry: The components.

    Returns:
        The complete config, which sets `defaults: fixed` and therefore gives the same run by itself; and the reasons
        for the choices.
    """
    if config.defaults == "fixed":
        return config, []
    asked = config.model_dump(mode="json", exclude_unset=True)
    suggested, reasons = {}, []
    if config.model.type == TWO_TOWER:
        suggested, reasons = suggest_config(dataset, None, asked, registry)
        if _may_blend(config, registry):
            suggested["blend"] = {}
            reasons.append("blend: classical models are tuned, and join the towers if validation is better with them")
    suggested["data"] = {"roles": known_roles(dataset)}
    document = merged(merged(asked, suggested), _metric(config))
    complete = Config.model_validate({**document, "defaults": "fixed"})
    idle = [*idle_keys(complete, registry), *idle_with_data(complete, dataset)]
    suggestions = [one for one in idle if not is_set(asked, one.path)]
    return Config.model_validate(without(complete.model_dump(mode="json", exclude_unset=True), suggestions)), reasons


def _may_blend(config: Config, registry: Registry) -> bool:
    """Return whether a blend is suggested: not if it is set, or is excluded by other keys."""
    return "blend" not in config.model_fields_set and not blend_faults(config, registry)


def merged(asked: JsonObject, suggested: JsonObject) -> JsonObject:
    """Return `asked` with every key of `suggested` that it does not set, at any depth.

    If `asked` names a `type` other than the suggested one, suggestions next to that type are left out.
    """
    found = copy.deepcopy(asked)
    for key, value in suggested.items():
        if key not in found:
            found[key] = copy.deepcopy(value)
        elif isinstance(value, dict) and isinstance(found[key], dict) and same_type(found[key], value):
            found[key] = merged(found[key], value)
    return found


def same_type(asked: JsonObject, suggested: JsonObject) -> bool:
    """Return whether a choice names no `type`, or the suggested one."""
    return asked.get("type") in (None, suggested.get("type"))


def _metric(config: Config) -> JsonObject:
    """Return ndcg at the cut-off of `evaluation.k` nearest to the fixed default's, if the metric is not set."""
    if "metric" in config.training.model_fields_set:
        return {}
    nearest = min(config.evaluation.k, key=lambda k: abs(k - 10))
    return {"training": {"metric": f"ndcg@{nearest}"}}
