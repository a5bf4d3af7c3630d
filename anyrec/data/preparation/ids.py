"""Ids as places in a vocabulary."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.columns import FlatLists, PreparedColumn
from anyrec.data.ids import rows_of
from anyrec.data.list_columns import offsets_of


def places_of_ids(column: pa.Array, vocabulary: pa.Array) -> PreparedColumn:
    """Return (records,) int64 places in the vocabulary; a record with an unknown id is absent."""
    rows = rows_of(column, vocabulary)
    return PreparedColumn(np.maximum(rows, 0), rows >= 0)


def places_of_listed_ids(column: pa.Array, vocabulary: pa.Array) -> FlatLists:
    """Return the places of the known ids of each record, int64.

    Args:
        column: (records,) lists of ids.
        vocabulary: The known ids.
    """
    places = rows_of(column.flatten(), vocabulary)
    known = places >= 0
    owners = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)[known]
    return FlatLists(places[known], offsets_of(owners, len(column)))
