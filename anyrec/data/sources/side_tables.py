"""Side tables: their columns are added to the rows of another table by a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config.sources import Aggregate, SideTable
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.values import show
from anyrec.data.formats.at import At
from anyrec.data.formats.places import Place
from anyrec.data.sources.groups import Groups, key_of
from anyrec.data.sources.nested import column_named, names_of


def keys_of(side: SideTable) -> dict[str, str]:
    """Return the key columns of the side table by those of the table that it is added to."""
    return {side.on: side.on} if isinstance(side.on, str) else side.on


def joined(table: pa.Table, side: SideTable, other: pa.Table, place: Place, name: str, at: At) -> pa.Table:
    """Add the columns of a side table.

    Keys are compared as texts, since formats without types have no numbers.

    Args:
        table: The rows that get the columns.
        side: The key, and how the rows of one key become one.
        other: The side table.
        place: Where its rows are.
        name: Its name, for messages.
        at: The table that gets the columns, for messages.

    Raises:
        ConfigError: For columns that are not there, or that the table has already.
    """
    keys = keys_of(side)
    left = key_of([_existing(table, column, at.name, f"{at.where}/on") for column in keys], at)
    right = key_of([_existing(other, column, name, f"{at.where}/on") for column in keys.values()], at)
    groups = Groups(right)
    wanted: Mapping[str, Literal["value"] | Aggregate] | None = side.columns
    if wanted is None:
        wanted = {column: "value" for column in other.column_names if column not in keys.values()}
    if "value" in wanted.values():
        again = groups.repeated()
        hint = "Set in `columns` how the rows of one key become one value: list, first, last, count, sum, ..."
        at.faults.add_rows(
            "duplicate id",
            again,
            lambda row: (place(row, ""), f"the key {show(right[row].as_py())} occurs again.", hint),
        )
    matches = pc.index_in(left, value_set=groups.keys)
    for column, how in wanted.items():
        new = side.prefix + column
        if new in table.column_names:
            what = f"{at.name} has a column '{new}' as well."
            raise ConfigError(Fault(at.where, what, "Set `prefix`, for example to 'tag_'.", "doubled column"))
        values = _existing(other, column, name, f"{at.where}/columns")
        at_column = At(f"{name}: {column}", at.where, lambda row, c=column: place(row, c), at.faults, at.notes)
        one = groups.first(values)[0] if how == "value" else groups.aggregate(values, how, at_column)
        table = table.append_column(new, one.take(matches))
    _note_matches(matches, groups, table, name, at)
    return table


def _existing(table: pa.Table, column: str, name: str, where: str) -> pa.Array:
    found = column_named(table, column)
    if found is None:
        what = f"{name} has no column '{column}'."
        raise ConfigError(Fault(where, what, did_you_mean(column, names_of(table.schema)), "unknown column"))
    return found


def _note_matches(matches: pa.Array, groups: Groups, table: pa.Table, name: str, at: At) -> None:
    found = np.unique(matches.drop_null().to_numpy())
    lone = len(groups) - len(found)
    if matches.null_count:
        at.notes.append(f"{at.name}: {matches.null_count:,} of {len(table):,} rows have no row in {name}.")
    if lone:
        at.notes.append(f"{name}: {lone:,} of {len(groups):,} keys are not in {at.name} and are not used.")
