"""The index of a model's item vectors: built when it is first searched, saved and loaded with the model."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.config import Component
from anyrec.core.errors import ConfigError, Fault, ModelError
from anyrec.core.files import find_folder
from anyrec.core.manifest import MANIFEST
from anyrec.core.types import JsonObject
from anyrec.model.blended import BlendedModel, has_towers, towers_of
from anyrec.model.fitted import INDEX, FittedModel
from anyrec.retrieval.exhaustive import exhaustive_index
from anyrec.retrieval.item_index import ItemIndex

FOLDER = "index"
SMALL = 20_000
"""Up to this many items all are scored at once if exact search without options is configured: one matrix product, and
no copy of the vectors."""


def item_index(model: FittedModel) -> ItemIndex | None:
    """Return the index by which a model's best items are found: the one that was loaded with it, or that of its config.

    For a blend it has the vectors of the towers. If items were added to the model, it is the index of the items before,
    which have the first rows.

    None if all items are to be scored instead: if no part of the score is a dot product, if the items are few and the
    search is exact, or for a blend if the search is exact.
    """
    if not _has_dot_products(model):
        return None
    if model.base is not None:
        return item_index(model.base)
    component = component_of(model)
    if is_exhaustive(model, component):
        few = len(model.dataset.items) <= SMALL and not component.options()
        if few or isinstance(model, BlendedModel):
            return None
    return _kept(model)


def component_of(model: FittedModel) -> Component:
    """Return the type and options of the index that was loaded with a model, or else those in its config."""
    indexed = model if model.base is None else model.base
    return _kept(indexed).component if INDEX in indexed.computed else indexed.config.index


def has_index(model: FittedModel) -> bool:
    """Return whether the model keeps an index: one that was loaded with it, or has been searched."""
    return INDEX in (model if model.base is None else model.base).computed


def used_index(model: FittedModel) -> JsonObject:
    """Return the type and options of the index that lists are found by; the exhaustive one if all items are scored."""
    index = item_index(model)
    return scanned(model) if index is None else index.component.model_dump(mode="json")


def scanned(model: FittedModel) -> JsonObject:
    """Return what results name if all items were compared: the type of the exhaustive index."""
    return {"type": exhaustive_index(model.registry).type}


def is_exhaustive(model: FittedModel, component: Component) -> bool:
    """Return whether an index compares every vector."""
    return bool(model.registry.get("index", component.type, "/index/type").exhaustive)


def vectors_to_index(model: FittedModel) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Return what an index of the model's items is built from.

    Returns:
        (items,) ids; (items, dim) and (users, dim) float32 vectors, whose dot products are the model's scores, or for a
        blend those of its towers.

    Raises:
        ConfigError: If the model's score is no dot product of vectors.
    """
    if not _has_dot_products(model):
        kind = model.config.interaction.type if model.has_vectors else model.config.model.type
        raise ConfigError(
            Fault(
                "/interaction/type",
                f"an index needs a score that is a dot product of two vectors, which '{kind}' does not compute.",
                "Use a factorised interaction, as dot or cosine, or a factorisation, as ials.",
                "not factorised",
            )
        )
    return model.dataset.ids("item"), model.embeddings("item"), model.embeddings("user")


def share_index(model: FittedModel, index: ItemIndex | None) -> None:
    """Let `model` use an index of the same items, of a loaded model or of another state of the users."""
    if index is not None:
        model.computed.get(INDEX, lambda: index)


def save_index(model: FittedModel, folder: Path, model_id: str) -> None:
    """Write the index into the model's folder if it takes time to build; items that were added are in it.

    A failure, such as a server that does not answer, is logged as a warning: the model must not be lost by it.

    Args:
        model: The model.
        folder: Its folder.
        model_id: The id of the saved model.
    """
    if is_exhaustive(model, component_of(model)):
        return
    try:
        index = item_index(model) if model.base is None else _built(model)
        if index is not None:
            index.model = model_id
            index.save(folder / FOLDER)
    except Exception as error:
        text = f"the index is not saved with the model, and is built when it is first searched: {error}"
        logging.getLogger("anyrec").warning(text)


def load_index(model: FittedModel, directory: Path, run_folder: Path) -> tuple[ItemIndex | None, list[str]]:
    """Return the index of a loaded model.

    It is read from the folder of the model's run, to which `anyrec index` writes, or else from the model's own folder.

    Args:
        model: The model, with its `model_id`.
        directory: The model's folder.
        run_folder: The folder of its run.

    Returns:
        The index, or None if neither folder has one for this model; and a note if the run's folder has one that cannot
        be used.

    Raises:
        ModelError: If the index in the model's own folder is damaged or belongs to another model.
    """
    if not _has_dot_products(model):
        return None, []
    of_model, notes = (model.registry, model.model_id, model.context.trusted), []
    if find_folder(run_folder / FOLDER, MANIFEST) is not None:
        try:
            found = ItemIndex.load(run_folder / FOLDER, *of_model)
            if found.ids.equals(model.dataset.ids("item")):
                return found, []
        except ModelError as error:
            notes = [f"The index that `anyrec index` built is not used. {one}" for one in error.faults]
    if find_folder(directory / FOLDER, MANIFEST) is None and not (directory / FOLDER).exists():
        return None, notes
    return ItemIndex.load(directory / FOLDER, *of_model), notes


def _has_dot_products(model: FittedModel) -> bool:
    """Whether the score, or for a blend that of its towers, is a dot product of vectors."""
    scored = towers_of(model) if has_towers(model) else model
    return scored.has_vectors and scored.factorised


def _kept(model: FittedModel) -> ItemIndex:
    """Return the index that the model keeps, built now if it has none."""
    return model.computed.get(INDEX, lambda: _built(model))


def _built(model: FittedModel) -> ItemIndex:
    ids, items, users = vectors_to_index(model)
    return ItemIndex.build(model.config.index, model.registry, ids, items, queries=users, measured=False)
