"""A map of the catalogue: items in the plane, similar ones close to each other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import DataError, Fault, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.core.unit_vectors import unit_rows
from anyrec.data.item_facts import category_feature, title_of
from anyrec.data.list_columns import flat
from anyrec.data.summary import is_present
from anyrec.model.fitted import FittedModel

MOST_ITEMS = 5_000
"""Items of a map, those with the most users."""
KINDS = 11
"""Values of the category that have a colour of their own, the most frequent ones; all others share one."""


def item_map(model: FittedModel, feature: str | None = None) -> JsonObject:
    """Return the map of a model's items.

    The coordinates are the first two principal components of the items' unit vectors, so that the distance of two items
    follows their cosine, which `similar` ranks by. They are computed once.

    Args:
        model: A model with item vectors.
        feature: The categorical feature that colours the items; by default the one that divides them into kinds.

    Returns:
        `item_ids`, `titles`, `x`, `y` from -1 to 1, `popularity`, the fraction of items that fewer users had,
        `pictured`, whether it has the feature `picture`, and `kind`, the place of each item's value in `kinds` (-1 for
        other values and none); `feature` and the `features` that it can be; `explained`, the fraction of the variance
        that the plane shows; `items`, how many there are in the catalogue.

    Raises:
        InputError: If the model has no vectors.
        DataError: If there is no such feature.
    """
    dataset = model.dataset
    pictures = [name for name in dataset.features("item") if name.startswith("image.")]
    features = [name for name in dataset.features("item") if name.startswith("categorical.")]
    if feature is not None and feature not in features:
        hint = did_you_mean(feature, features)
        raise DataError([Fault("/feature", f"the items have no categorical feature '{feature}'.", hint, "feature")])
    rows, places, explained = _coordinates(model)
    users = model.item_users
    popularity = np.searchsorted(np.sort(users), users[rows]) / max(1, len(users))
    chosen = feature or category_feature(dataset) or next(iter(features), None)
    kinds, kind = ([], np.full(len(rows), -1)) if chosen is None else _kinds(model, chosen, rows)
    return {
        "item_ids": dataset.ids("item").take(pa.array(rows)).to_pylist(),
        "titles": [title_of(dataset, row) for row in rows.tolist()],
        "x": np.round(places[:, 0], 4).tolist(),
        "y": np.round(places[:, 1], 4).tolist(),
        "picture": pictures[0].removeprefix("image.") if pictures else None,
        "pictured": _pictured(model, pictures[0], rows) if pictures else [False] * len(rows),
        "popularity": np.round(popularity, 4).tolist(),
        "kind": kind.tolist(),
        "kinds": kinds,
        "feature": chosen,
        "features": features,
        "explained": explained,
        "items": len(dataset.items),
    }


@lru_cache(1)
def _coordinates(model: FittedModel) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (shown,) rows of items, (shown, 2) their coordinates, and the fraction of the variance they show."""
    vectors = unit_rows(model.embeddings("item"))
    rows = np.sort(np.argsort(-model.item_users, kind="stable")[:MOST_ITEMS])
    centred = vectors - vectors.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    main = axes[:, ::-1][:, :2]
    main = main * np.where(main.sum(0) < 0, -1, 1)  # the sign of a component is arbitrary: the same in each process
    places = centred[rows] @ main
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    explained = float(variances[::-1][:2].sum() / max(variances.sum(), 1e-12))
    return rows, places / max(float(np.abs(places).max(initial=0.0)), 1e-12), explained


def _pictured(model: FittedModel, name: str, rows: np.ndarray) -> list[bool]:
    """Return (rows,) which items have a picture."""
    return is_present(model.dataset.items.column(name).combine_chunks())[rows].tolist()


def _kinds(model: FittedModel, feature: str, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the most frequent values of a feature, and (rows,) the place of each item's first value among them."""
    values, owners = flat(model.dataset.items.column(feature).combine_chunks())
    values = values.cast(pa.string())
    counted = pc.value_counts(values)
    order = np.argsort(-counted.field("counts").to_numpy(), kind="stable")[:KINDS]
    kinds = counted.field("values").take(pa.array(order))
    code = pc.fill_null(pc.index_in(values, value_set=kinds), -1).to_numpy(zero_copy_only=False)
    first = np.searchsorted(owners, rows)
    has = np.append(owners, -1)[first] == rows
    return kinds.to_pylist(), np.where(has, np.append(code, -1)[first], -1)
