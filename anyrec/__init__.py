"""anyrec: trains a recommender on users, items and interactions with any mix of features.

Example:
    from anyrec import Dataset, Recommender

    recommender = Recommender.from_config("cfg.json").fit(Dataset.read("data.json"))
    recommender.recommend(["user 1"], k=10)

What this module exports is the public API: the recommender and its data, what plugins are made of (docs/plugins.md),
and its parts for programs of their own (docs/how-to/parts.md). Everything else may change.

Warnings about requests are logged to the logger `anyrec`, which prints nothing unless the program configures logging.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyrec.core.version import __version__ as __version__

if TYPE_CHECKING:
    from anyrec.core.config import Config
    from anyrec.core.contracts import (
        Classical,
        Context,
        Encoder,
        Fusion,
        Head,
        HistoryEncoder,
        Interaction,
        Loss,
        Negatives,
        Params,
        Sampler,
        Step,
        tunable,
    )
    from anyrec.core.errors import AnyrecError, NotFittedError
    from anyrec.core.hooks import hookimpl
    from anyrec.core.ragged import Prepared, Ragged
    from anyrec.data.dataset import Dataset
    from anyrec.data.sources.contract import Provider, Rows
    from anyrec.model.multi_modal_fusion import MultiModalFusion
    from anyrec.model.towers import EntityTower, ItemTower, UserTower
    from anyrec.model.two_tower_network import TwoTower
    from anyrec.pipeline.apply_rules import apply_rules
    from anyrec.pipeline.contracts import Lists, Request, Rule, Source
    from anyrec.pipeline.rules.availability import AvailabilityRule
    from anyrec.pipeline.rules.demographic import DemographicRule
    from anyrec.pipeline.rules.diversity import DiversityRule
    from anyrec.pipeline.rules.freshness import FreshnessRule
    from anyrec.pipeline.rules.history import HistoryRule
    from anyrec.pipeline.rules.where import WhereRule
    from anyrec.recommender import Recommender
    from anyrec.retrieval.create_index import create_index
    from anyrec.retrieval.index import Index
    from anyrec.retrieval.results import SearchResult
    from anyrec.retrieval.vector_database import VectorDatabase
    from anyrec.study.tune import tune
    from anyrec.training.tracker import Tracker
    from anyrec.training.tracking import Tracking

__all__ = [
    "AnyrecError",
    "AvailabilityRule",
    "Classical",
    "Config",
    "Context",
    "Dataset",
    "DemographicRule",
    "DiversityRule",
    "Encoder",
    "EntityTower",
    "FreshnessRule",
    "Fusion",
    "Head",
    "HistoryEncoder",
    "HistoryRule",
    "Index",
    "Interaction",
    "ItemTower",
    "Lists",
    "Loss",
    "MultiModalFusion",
    "Negatives",
    "NotFittedError",
    "Params",
    "Prepared",
    "Provider",
    "Ragged",
    "Recommender",
    "Request",
    "Rows",
    "Rule",
    "Sampler",
    "SearchResult",
    "Source",
    "Step",
    "Tracker",
    "Tracking",
    "TwoTower",
    "UserTower",
    "VectorDatabase",
    "WhereRule",
    "apply_rules",
    "create_index",
    "hookimpl",
    "tunable",
    "tune",
]

_HOMES = {
    "AnyrecError": "core.errors",
    "AvailabilityRule": "pipeline.rules.availability",
    "Classical": "core.contracts",
    "Config": "core.config",
    "Context": "core.contracts",
    "Dataset": "data.dataset",
    "DemographicRule": "pipeline.rules.demographic",
    "DiversityRule": "pipeline.rules.diversity",
    "Encoder": "core.contracts",
    "EntityTower": "model.towers",
    "FreshnessRule": "pipeline.rules.freshness",
    "Fusion": "core.contracts",
    "Head": "core.contracts",
    "HistoryEncoder": "core.contracts",
    "HistoryRule": "pipeline.rules.history",
    "Index": "retrieval.index",
    "Interaction": "core.contracts",
    "ItemTower": "model.towers",
    "Lists": "pipeline.contracts",
    "Loss": "core.contracts",
    "MultiModalFusion": "model.multi_modal_fusion",
    "Negatives": "core.contracts",
    "NotFittedError": "core.errors",
    "Params": "core.contracts",
    "Prepared": "core.ragged",
    "Provider": "data.sources.contract",
    "Ragged": "core.ragged",
    "Recommender": "recommender",
    "Request": "pipeline.contracts",
    "Rows": "data.sources.contract",
    "Rule": "pipeline.contracts",
    "Sampler": "core.contracts",
    "SearchResult": "retrieval.results",
    "Source": "pipeline.contracts",
    "Step": "core.contracts",
    "Tracker": "training.tracker",
    "Tracking": "training.tracking",
    "TwoTower": "model.two_tower_network",
    "UserTower": "model.towers",
    "VectorDatabase": "retrieval.vector_database",
    "WhereRule": "pipeline.rules.where",
    "apply_rules": "pipeline.apply_rules",
    "create_index": "retrieval.create_index",
    "hookimpl": "core.hooks",
    "tunable": "core.contracts",
    "tune": "study.tune",
}

logging.getLogger("anyrec").addHandler(logging.NullHandler())  # silent until the program configures logging


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first used, so that `import anyrec` loads nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'anyrec' has no attribute {name!r}")
    value = getattr(import_module(f"anyrec.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
