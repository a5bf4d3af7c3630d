"""The configs of a study's trials: the config of the study with other values of the searched keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from anyrec.core.config import Config
from anyrec.core.effects import chosen_by_user, idle_keys, without
from anyrec.core.load_config import load_config
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject
from anyrec.data.checks.config_fits import idle_with_data
from anyrec.data.dataset import Dataset
from anyrec.model.build import check_with_data

OF_THE_PLACE = ("exclude", "fields", "pool_group")
"""Keys next to a `type` that are no options of the component, so that they stay if another one is chosen."""


@dataclass(frozen=True)
class TrialConfigs:
    """Makes the config of a trial.

    Attributes:
        base: The complete config of the study.
        registry: The components.
        dataset: The data.
    """

    base: Config
    registry: Registry
    dataset: Dataset

    def make(self, values: Mapping[str, Json]) -> tuple[Config, list[str]]:
        """Return the complete config with some values, checked against the data.

        Args:
            values: Values of searched keys. A `type` comes before the options of its component.

        Returns:
            The config, and those of the keys that have no effect together with the others and are left out.

        Raises:
            ConfigError: If the values are invalid, or do not go together.
        """
        document = self.base.model_dump(mode="json", exclude_unset=True)
        for key in sorted(values, key=lambda key: not key.endswith(".type")):
            put(document, key, values[key])
        config, _ = load_config(document, registry=self.registry)
        idle = [*idle_keys(config, self.registry), *idle_with_data(config, self.dataset)]
        chosen = [one for one in chosen_by_user(idle, config) if one.is_fault]
        config = Config.model_validate(without(config.model_dump(mode="json", exclude_unset=True), chosen))
        check_with_data(config, self.registry, self.dataset)
        paths = {".".join(one.path) for one in idle}
        return config, [key for key in values if key in paths]


def put(document: JsonObject, key: str, value: Json) -> None:
    """Set a dotted key of a config document. Another `type` of a component removes the options of the former one."""
    *parents, last = key.split(".")
    place = document
    for part in parents:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    if last == "type" and place.get("type") != value:
        for other in [name for name in place if name not in OF_THE_PLACE]:
            del place[other]
    place[last] = copy.deepcopy(value)


def value_at(document: Json, key: str) -> Json:
    """Return the value of a dotted key of a document; None if there is none."""
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document
