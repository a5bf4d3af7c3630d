"""Lifts of items for the values of users' features: how much more often users with a value choose an item."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from anyrec.core.types import SparseMatrix
from anyrec.data.list_columns import flat, is_list

MOST_VALUES, LEAST_USERS = 200, 5
"""Most values of a feature that are used, the most frequent first, and the fewest users of each."""
BINS = 10
"""Quantiles that a continuous feature is binned by."""
PRIOR_PAIRS = 30.0
"""Pairs added to the observed and to the expected count: the lift of a rare value or item is near 0."""


class UserFeatures(NamedTuple):
    """Categories and binned numbers of users.

    Attributes:
        values: (users, values) CSR float32: 1 for a user's value of a feature, or 1/n if the user has n values of it.
        features: (values,) int64, the feature of each value, 0, 1, ... in the order of the features' names.
    """

    values: SparseMatrix
    features: np.ndarray

    @staticmethod
    def of(table: pa.Table | None, users: int) -> UserFeatures:
        """Read the categorical and continuous features of users.

        Values of fewer than 5 users are left out, and features that then have fewer than two values. A continuous
        feature is binned by its deciles; lists of numbers are left out.

        Args:
            table: The users' features, one row for each user; None for none.
            users: Number of users.
        """
        found = [] if table is None else [_indicators(table, name) for name in sorted(table.column_names)]
        kept = [values for values in found if values is not None]
        empty = sparse.csr_matrix((users, 0), dtype=np.float32)
        features = np.repeat(np.arange(len(kept)), [values.shape[1] for values in kept]).astype(np.int64)
        return UserFeatures(sparse.hstack([empty, *kept], format="csr", dtype=np.float32), features)

    @property
    def feature_count(self) -> int:
        """Number of features."""
        return int(self.features.max(initial=-1)) + 1

    def lifts(self, pairs: SparseMatrix, items: np.ndarray) -> np.ndarray:
        """Return the lift of each item for each value.

        The lift is log((n + 30) / (e + 30)): n pairs of the item by users with the value, and e expected if the value's
        share in the pairs of an item were that in all pairs of users who have the feature.

        Args:
            pairs: (users, all items) CSR, 1 for each pair.
            items: (items,) rows of the items.

        Returns:
            (values, items) float32.
        """
        observed = (self.values.T @ pairs[:, items]).toarray()
        of_value = self.values.T @ np.diff(pairs.indptr).astype(np.float32)
        of_feature = np.bincount(self.features, of_value, minlength=self.feature_count)[self.features]
        of_items = np.zeros((self.feature_count, len(items)), np.float32)
        np.add.at(of_items, self.features, observed)
        expected = of_items[self.features] * (of_value / np.maximum(of_feature, 1e-9))[:, None]
        return np.log((observed + PRIOR_PAIRS) / (expected + PRIOR_PAIRS)).astype(np.float32)

    def of_each(self, rows: np.ndarray, lifts: np.ndarray) -> np.ndarray:
        """Return (users, items, features) float32, the lifts of each feature for some users, 0 for a missing value."""
        values = self.values[rows]
        parts = [values[:, self.features == n] @ lifts[self.features == n] for n in range(self.feature_count)]
        return np.stack(parts, 2) if parts else np.zeros((len(rows), lifts.shape[1], 0), np.float32)


def _indicators(table: pa.Table, name: str) -> SparseMatrix | None:
    """Return (users, values) CSR of one feature; None if it is of another kind or has fewer than two values."""
    column, group = table.column(name).combine_chunks(), name.split(".")[0]
    if group == "categorical":
        values, owners = flat(column)
        encoded = values.cast(pa.string()).dictionary_encode()
        order = pc.rank(encoded.dictionary, tiebreaker="first").to_numpy(zero_copy_only=False).astype(np.int64) - 1
        codes = order[encoded.indices.to_numpy(zero_copy_only=False)] if len(values) else np.empty(0, np.int64)
    elif group == "continuous" and not is_list(column.type):
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        owners = np.flatnonzero(np.isfinite(numbers))
        edges = np.unique(np.quantile(numbers[owners], np.arange(1, BINS) / BINS)) if len(owners) else np.empty(0)
        codes = np.digitize(numbers[owners], edges)
    else:
        return None
    ones = np.ones(len(codes), np.float32)
    matrix = sparse.csr_matrix((ones, (owners, codes)), (len(table), int(codes.max(initial=-1)) + 1))
    matrix.data[:] = 1  # a value that a list repeats counts once
    users = np.asarray(matrix.sum(0)).ravel()
    frequent = np.argsort(-users, kind="stable")[:MOST_VALUES]
    kept = np.sort(frequent[users[frequent] >= LEAST_USERS])
    if len(kept) < 2:
        return None
    matrix = matrix[:, kept]
    each = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    return (sparse.diags(1 / each) @ matrix).tocsr()
