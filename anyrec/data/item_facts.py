"""Facts about users and items that reports and lists show: titles, categories."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.list_columns import flat

FEWEST, MOST = 2, 200
"""Number of values of a feature that can divide items into groups."""
MAKERS = (
    "author",
    "artist",
    "brand",
    "creator",
    "director",
    "writer",
    "publisher",
    "manufacturer",
    "designer",
    "maker",
)
"""Words in the names of features that say who made an item."""
MOST_TRAITS = 4


def category_feature(dataset: Dataset, wanted: str | None = None) -> str | None:
    """Return the categorical feature that divides items into kinds.

    Args:
        dataset: The data.
        wanted: The feature that the config names.

    Returns:
        `wanted` if items have it. Without it: of the features with 2 to 200 values that most items have, one whose name
        says category, genre, type or class, otherwise the one with the fewest values. None if there is none.
    """
    if wanted is not None:
        return wanted if wanted in dataset.items.column_names else None
    best: tuple[bool, int, str] | None = None
    for name in dataset.features("item"):
        column = dataset.items.column(name).combine_chunks()
        if not name.startswith("categorical.") or column.null_count > len(column) / 2:
            continue
        values = len(pc.unique(flat(column)[0]))
        named = any(word in name.split(".")[1].lower() for word in ("categor", "genre", "type", "class"))
        rank = (not named, values, name)
        if FEWEST <= values <= MOST and (best is None or rank < best):
            best = rank
    return None if best is None else best[2]


def trait_features(dataset: Dataset, wanted: list[str] | None, category: str | None) -> list[str]:
    """Return the categorical item features that lists and histories are compared by.

    Args:
        dataset: The data.
        wanted: The features that the config names.
        category: As `category_feature` returns it.

    Returns:
        `wanted`, those that items have. Without it: the category, and the features whose name says who made an item.
    """
    known = [name for name in dataset.features("item") if name.startswith("categorical.")]
    if wanted is not None:
        return [name for name in dict.fromkeys(wanted) if name in known]
    made = [name for name in known if any(word in name.split(".")[1].lower() for word in MAKERS)]
    traits = made if category is None else [category, *made]
    return list(dict.fromkeys(traits))[:MOST_TRAITS]


def indicators(dataset: Dataset, side: Side, name: str) -> tuple[sparse.csr_matrix, list[str]]:
    """Return which records have which values of a categorical feature.

    Args:
        dataset: The data.
        side: The side of the records.
        name: The column of the feature.

    Returns:
        (rows, values) 1 if a record has the value; and the values, most frequent first.
    """
    column = dataset.table(side).column(name).combine_chunks()
    given, owners = flat(column)
    counts = pc.value_counts(given)
    order = np.lexsort((np.arange(len(counts)), -counts.field("counts").to_numpy()))
    values = counts.field("values").take(pa.array(order))
    place = pc.index_in(given, value_set=values).to_numpy(zero_copy_only=False)
    matrix = sparse.csr_matrix((np.ones(len(place)), (owners, place)), (len(column), len(values)))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix, [str(value) for value in values.to_pylist()]


def title_of(dataset: Dataset, row: int) -> str:
    """Return an item's title or name; its id if it has neither."""
    for name in ("text.title", "text.name"):
        if name in dataset.items.column_names:
            value = dataset.items.column(name)[row].as_py()
            if value:
                return value if isinstance(value, str) else value[0]
    return str(dataset.ids("item")[row].as_py())
