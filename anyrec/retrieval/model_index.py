"""The index of a model's item vectors: built when it is first searched, saved and loaded with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.errors import ConfigError, Fault, ModelError
from anyrec.model.blended import has_towers, towers_of
from anyrec.model.fitted import INDEX, FittedModel
from anyrec.retrieval.item_index import ItemIndex

FOLDER = "index"
SMALL = 20_000
"""Up to this many items all are scored at once if exact search is configured: one matrix product, and no copy of the
vectors."""


def item_index(model: FittedModel) -> ItemIndex | None:
    """Return the index that `index` of the config describes, over the items' vectors.

    None if all items are to be scored instead: if the score is no dot product, if items were added since, or if they
    are few and the search is exact.
    """
    if not model.has_vectors or not model.factorised or model.widened:
        return None
    if len(model.dataset.items) <= SMALL and _is_exhaustive(model):
        return None
    return model.computed.get(INDEX, lambda: _built(model))


def vectors_to_index(model: FittedModel) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Return what an index of the model's items is built from.

    Returns:
        (items,) ids; (items, dim) and (users, dim) float32 vectors, whose dot products are the model's scores, or for a
        blend those of its towers.

    Raises:
        ConfigError: If the model's score is no dot product of vectors.
    """
    scored = towers_of(model) if has_towers(model) else model
    if not scored.has_vectors or not scored.factorised:
        kind = model.config.interaction.type if model.has_vectors else model.config.model.type
        raise ConfigError(
            Fault(
                "/interaction/type",
                f"an index needs a score that is a dot product of two vectors, which '{kind}' does not compute.",
                "Use a factorised interaction, as dot or cosine.",
                "not factorised",
            )
        )
    return model.dataset.ids("item"), model.embeddings("item"), model.embeddings("user")


def share_index(model: FittedModel, index: ItemIndex | None) -> None:
    """Let `model` use an index of the same items, of a loaded model or of another state of the users."""
    if index is not None:
        model.computed.get(INDEX, lambda: index)


def save_index(model: FittedModel, folder: Path, model_id: str, *, searched: bool) -> None:
    """Write the index into the model's folder if a pipeline searches one that takes time to build.

    Args:
        model: The model.
        folder: Its folder.
        model_id: The id of the saved model.
        searched: Whether a pipeline searches the index.
    """
    if not searched or _is_exhaustive(model):
        return
    index = item_index(model)
    if index is not None:
        index.model = model_id
        index.save(folder / FOLDER)


def load_index(model: FittedModel, directory: Path, run_folder: Path) -> ItemIndex | None:
    """Return the index of a loaded model, from its folder or the folder of its run; None if neither has one.

    Args:
        model: The model, with its `model_id`.
        directory: The model's folder.
        run_folder: The folder of its run, to which `anyrec index` writes by default.

    Raises:
        ModelError: If the index in the folder is damaged or belongs to another model.
    """
    of_model = model.registry, model.model_id, model.context.trusted
    if (directory / FOLDER).exists():
        return ItemIndex.load(directory / FOLDER, *of_model)
    try:
        found = ItemIndex.load(run_folder / FOLDER, *of_model)
    except ModelError:
        return None
    return found if found.ids.equals(model.dataset.ids("item")) else None


def _is_exhaustive(model: FittedModel) -> bool:
    return model.registry.get("index", model.config.index.type, "/index/type").exhaustive


def _built(model: FittedModel) -> ItemIndex:
    ids, items, users = vectors_to_index(model)
    return ItemIndex.build(model.config.index, model.registry, ids, items, queries=users, measured=False)
