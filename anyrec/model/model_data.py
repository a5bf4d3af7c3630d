"""The parts of a model that exist before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from anyrec.core.config import Config
from anyrec.core.registry import Registry
from anyrec.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelData:
    """The parts of a model that exist before it is trained. Pipelines are checked against them.

    Attributes:
        config: Complete config.
        registry: The components.
        dataset: The users and items that the model knows.
        has_vectors: Whether users and items have embeddings.
        history: (users,) list<EVENT>, the interactions of each known user, if the model or its pipeline reads them.
    """

    config: Config
    registry: Registry
    dataset: Dataset
    has_vectors: bool
    history: pa.Array | None = None
