"""Hashes of a dataset and its split, by part, so that a resumed or repeated run is known to see the same data."""

from __future__ import annotations

import pyarrow as pa

from anyrec.data.dataset import Dataset
from anyrec.data.hashing import hash_table, hash_values
from anyrec.data.split import Split


def data_fingerprint(dataset: Dataset, split: Split) -> dict[str, str]:
    """Return the sha256 of each table of the dataset, and of the interactions held out for validation and test.

    Returns:
        Hashes under `users`, `items`, `interactions` and `split`.
    """
    found = {
        "users": hash_table(dataset.users),
        "items": hash_table(dataset.items),
        "interactions": hash_table(dataset.interactions),
    }
    parts = [pa.array(rows) for rows in (split.train, split.validation, split.test)]
    return {**found, "split": hash_values(parts)}
