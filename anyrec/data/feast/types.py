"""Names and types of Feast for the columns of a dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from anyrec.core.errors import DataError, Fault

SCALARS = {
    pa.string(): "String",
    pa.large_string(): "String",
    pa.float64(): "Float64",
    pa.float32(): "Float32",
    pa.int64(): "Int64",
    pa.int32(): "Int32",
    pa.bool_(): "Bool",
}
"""Feast's types of values."""


def feast_type(kind: pa.DataType) -> str | None:
    """Return the type of Feast for an Arrow type, as Python writes it; None if Feast has no such type."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = feast_type(kind.value_type)
        return None if inner is None or inner.startswith("Array") else f"Array({inner})"
    return "UnixTimestamp" if pa.types.is_timestamp(kind) else SCALARS.get(kind)


def feast_names(columns: Sequence[str]) -> dict[str, str]:
    """Return the name of each column in Feast, where a name has letters, digits and underscores only.

    `categorical.job` is `categorical_job`. The double underscore separates views from features, so it becomes one.

    Args:
        columns: Names of features.

    Raises:
        DataError: If two columns have the same name.
    """
    names = {column: re.sub(r"[\W_]+", "_", column).strip("_") for column in columns}
    by_name: dict[str, list[str]] = {}
    for column, name in names.items():
        by_name.setdefault(name, []).append(column)
    faults = [
        Fault(", ".join(same), f"these features have one name in Feast, '{name}'.", "Rename the others.", "same name")
        for name, same in by_name.items()
        if len(same) > 1
    ]
    if faults:
        raise DataError(faults)
    return names
