"""Pushes a model's item vectors to a vector database, and checks that a search there finds the same items."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import ConfigError, Fault, InputError, did_you_mean
from anyrec.core.progress import progress_bar
from anyrec.core.timing import timed
from anyrec.data.formats.write_json import nested_record
from anyrec.data.ids import Id
from anyrec.model.blended import BlendedModel
from anyrec.model.fitted import FittedModel
from anyrec.retrieval.model_index import vectors_to_index
from anyrec.retrieval.recall import TIE, K
from anyrec.retrieval.vector_database import VectorDatabase, database_at

QUERIES = 100
"""Users whose nearest items are searched after a push."""
SAME = 1e-3
"""Scores of the database may differ from the exact ones by this fraction of the largest."""
ENOUGH = 0.9
"""A recall below this is a warning."""
BLEND = "The model is a blend: the vectors are those of its towers, and `recommend` adds its classical models to them."
OTHERS = "{others:,} other ids are in the collection, with vectors of another push. Remove them with --remove-stale."
FAR = "Searches in the database find {recall:.0%} of the nearest items: raise the search width of its index."


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        place: Where the vectors are stored.
        items: Items that were stored or replaced.
        removed: Items of the collection that the model does not have and that were removed.
        others: Items of the collection that the model does not have and that are still there.
        recall: Fraction of the 10 exactly nearest items that searches in the database find, for at most 100 users.
    """

    place: str
    items: int
    removed: int
    others: int
    recall: float


@timed("items pushed")
def push_items(
    model: FittedModel,
    address: str,
    *,
    fields: Sequence[str] = (),
    remove_stale: bool = False,
    batch_size: int = 1000,
    progress: bool = True,
) -> Pushed:
    """Store the vectors of all items of a model in a vector database, by the ids of the items.

    The dot product of a stored vector with a user's embedding is the model's score. A second push of the same model
    changes nothing.

    Args:
        model: The model.
        address: The database and the collection (docs/vector-databases.md).
        fields: Features of the items, for example `categorical.kind`, that are stored with the vectors.
        remove_stale: Remove items from the collection that the model does not have.
        batch_size: Items of one request.
        progress: Show a progress bar.

    Raises:
        ConfigError: For an invalid address, unknown fields, or a model whose score is no dot product.
        InputError: If the database cannot be used, or returns other scores than the model.
    """
    ids, vectors, users = vectors_to_index(model)
    _check_fields(model, fields)
    database = database_at(address, model.registry)
    with closing(database):
        database.open(ids.type, vectors.shape[1])
        _upsert(database, ids, vectors, model.dataset.items.select(list(fields)), batch_size, progress)
        stale = [one for page in database.stored() for one in _unknown(page, ids)]
        if remove_stale and stale:
            database.remove(stale)
        database.finish()
        others = 0 if remove_stale else len(stale)
        recall = _checked_recall(database, ids, vectors, users, others)
    log = logging.getLogger("anyrec")
    if isinstance(model, BlendedModel):
        log.warning(BLEND)
    if others:
        log.warning(OTHERS.format(others=others))
    if recall < ENOUGH:
        log.warning(FAR.format(recall=recall))
    return Pushed(str(database.target), len(ids), len(stale) - others, others, recall)


def _check_fields(model: FittedModel, fields: Sequence[str]) -> None:
    known = [name for name in model.dataset.items.column_names if name != "item_id"]
    faults = [
        Fault("--field", f"items have no feature '{name}'.", did_you_mean(name, known), "unknown feature")
        for name in fields
        if name not in known
    ]
    if faults:
        raise ConfigError(faults)


def _upsert(
    database: VectorDatabase, ids: pa.Array, vectors: np.ndarray, features: pa.Table, batch_size: int, progress: bool
) -> None:
    """Store all items in batches."""
    with progress_bar("pushing items", len(ids), progress) as bar:
        for start in range(0, len(ids), batch_size):
            part = ids.slice(start, batch_size).to_pylist()
            rows = features.slice(start, batch_size).to_pylist() if features.num_columns else [{} for _ in part]
            records = [msgspec.to_builtins(nested_record(row)) for row in rows]
            database.upsert(part, vectors[start : start + batch_size], records)
            bar.advance(len(part))


def _unknown(page: list[Id], ids: pa.Array) -> list[Id]:
    """Return the ids of a page that the model does not have."""
    found = pa.array(page, ids.type)
    return found.filter(pc.invert(pc.is_in(found, value_set=ids))).to_pylist()


def _checked_recall(
    database: VectorDatabase, ids: pa.Array, vectors: np.ndarray, users: np.ndarray, others: int
) -> float:
    """Search for some users, and return the fraction of the exactly nearest items that is found.

    Raises:
        InputError: If an item is not found with the score that the model gives it.
    """
    rng, k, found = np.random.default_rng(0), min(K, len(ids)), 0
    queries = users[rng.permutation(len(users))[:QUERIES]]
    for query in queries:
        hits = 0
        exact = vectors @ query
        nearest, slack = np.partition(exact, -k)[-k], SAME * max(np.abs(exact).max(), 1e-6)
        answers = database.search(query, k + min(others, QUERIES))
        rows = pc.index_in(pa.array([item for item, _ in answers], ids.type), value_set=ids)
        for row, (item, score) in zip(rows.to_pylist(), answers, strict=True):
            if row is None:
                continue
            if abs(exact[row] - score) > slack:
                what = f"the item {item!r} has the score {score:.4f} there, and {exact[row]:.4f} in the model."
                hint = "Is another program writing to the collection? Push again, or to a collection of its own."
                raise InputError(Fault(str(database.target), what, hint, "other scores"))
            hits += exact[row] >= nearest - TIE * abs(nearest)
        found += min(hits, k)
    return found / (k * len(queries))
