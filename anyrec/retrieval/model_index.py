"""The index of a recommender's items: made once, saved and loaded with the model it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyrec.core.errors import ModelError
from anyrec.retrieval.item_index import ItemIndex

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

FOLDER = "index"
SMALL = 20_000
"""Items up to which all are scored at once where exact search is asked for: one matrix product, and no copy of the vectors."""


def catalogue_of(recommender: Recommender) -> ItemIndex | None:
    """The index of `index` in the config over the items' vectors; None where all items are to be scored: where the score is no dot
    product, where items were added since, or where they are few and the search exact."""
    exact = recommender.config.index.type == "exact"
    items = recommender.dataset.ids("item")
    unable = not recommender.has_vectors or not recommender.model.interaction.factorised
    if unable or recommender.widened or (exact and len(items) <= SMALL):
        return None
    if recommender.catalogue is None:
        recommender.catalogue = _built(recommender)
    return recommender.catalogue


def save_catalogue(recommender: Recommender, folder: Path, model: str) -> None:
    """Write the index into the model's folder, where a pipeline searches one that takes time to build. model: `model_id` of the folder."""
    if recommender.pipeline is None or recommender.config.index.type == "exact":
        return
    catalogue = catalogue_of(recommender)
    if catalogue is not None:
        catalogue.model = model
        catalogue.save(folder / FOLDER)


def load_catalogue(recommender: Recommender, directory: Path, beside: Path) -> ItemIndex | None:
    """The index of a loaded model: the one within its folder, or one in the folder of its run that belongs to it; None without any.

    Args:
        recommender: the model, with its `model_id`.
        directory: the model's folder.
        beside: the folder of its run.

    Raises:
        ModelError: if the index within the folder is damaged or belongs to another model.
    """
    of_model = recommender.registry, recommender.model_id, recommender.context.trusted
    if (directory / FOLDER).exists():
        return ItemIndex.load(directory / FOLDER, *of_model)
    try:
        found = ItemIndex.load(beside / FOLDER, *of_model)
    except ModelError:
        return None
    return found if found.ids.equals(recommender.dataset.ids("item")) else None


def _built(recommender: Recommender) -> ItemIndex:
    with recommender._inference():
        vectors, users = (
            recommender._vectors(side, recommender._known_rows(side)).float().cpu().numpy() for side in ("item", "user")
        )
    ids = recommender.dataset.ids("item")
    index = recommender.config.index
    return ItemIndex.build(index, recommender.registry, ids, vectors, queries=users, measured=False)
