"""Prepared columns as the inputs of a tower's graph. A feature NAME has the input `NAME.present`, (batch,) bool, and:

a number or vector for each record    NAME.values     (batch, ...)
lists (categories, words, images)     NAME.values     (batch, length, ...), padded at the end
                                      NAME.mask       (batch, length) bool, False for padding
a history                             NAME.vectors    (batch, length, dim) vectors of the items, oldest first
                                      NAME.mask       as for lists
                                      NAME.gaps       (batch, length) float32, log(1 + seconds) since the event before
                                      NAME.kinds      (batch, length) int64, the type of the interaction, 0 for unknown

What follows the last dot is never part of NAME, so features whose names begin with each other have different inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anyrec.core.columns import Arrays, FlatLists, PreparedColumn

EVENTS = ("gaps", "kinds")
"""What a graph reads of events besides their items."""


def graph_inputs(name: str, column: PreparedColumn, vectors: np.ndarray, least: int = 1) -> dict[str, np.ndarray]:
    """Return the inputs of one feature.

    Args:
        name: The feature.
        column: The prepared column.
        vectors: (items, dim) the vectors that a history refers to.
        least: Length of lists, and of the elements of lists, that the result has at least: graphs read no empty arrays.
            With 0, of a column without rows, all dimensions that depend on values are 0.
    """
    return {**_values(name, column.values, vectors, least), f"{name}.present": column.present}


def _values(name: str, values: Arrays, vectors: np.ndarray, least: int) -> dict[str, np.ndarray]:
    if isinstance(values, np.ndarray):
        return {f"{name}.values": values}
    if isinstance(values, FlatLists):
        padded, mask = values.padded(least)
        if 0 in padded.shape[2:]:  # lists of texts without a token
            padded = np.zeros((*padded.shape[:2], *(max(least, size) for size in padded.shape[2:])), padded.dtype)
        return {f"{name}.values": padded, f"{name}.mask": mask}
    items = _lists(values, "items")
    rows, mask = items.padded(least)
    gathered = vectors[rows] if len(vectors) else np.zeros((*rows.shape, vectors.shape[1]), np.float32)
    made = {f"{name}.vectors": np.where(mask[..., None], gathered, np.float32(0)), f"{name}.mask": mask}
    made |= {f"{name}.{part}": _lists(values, part).padded(least)[0] for part in EVENTS if part in values}
    return made


def _lists(values: Mapping[str, np.ndarray | FlatLists], name: str) -> FlatLists:
    lists = values[name]
    assert isinstance(lists, FlatLists)
    return lists
