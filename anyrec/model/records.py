"""The users or items of a request as the model reads them, and the faults of what it cannot read."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.context import Context
from anyrec.core.errors import DataError, Fault
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.histories import HISTORY_NAMES
from anyrec.data.ids import ID_COLUMNS, Side
from anyrec.data.list_columns import flat
from anyrec.data.partial import of_other_type, type_name
from anyrec.data.request_history import RequestHistory
from anyrec.data.sources.groups import codes_of

NAMED = 3
"""Number of unseen categories that a message names."""
SUGGESTED = 10
"""Number of known names that a message lists if none is similar."""


@dataclass
class Records:
    """The users or items of one request. Nothing in it is shared with another request.

    Attributes:
        side: "user" or "item".
        ids: (rows,) the ids.
        rows: (rows,) int64, the row of each record among the known ones; -1 for a new record.
        table: The features, in the types of the model's own table; None if the request has only ids.
        context: Folder, options and warnings of this request.
        history: The interactions of the users that the request contains; None if it has none.
        everyone: True if these are all known records in their order.
    """

    side: Side
    ids: pa.Array
    rows: np.ndarray
    table: pa.Table | None
    context: Context
    history: RequestHistory | None = None
    everyone: bool = False

    def slice(self, start: int, length: int) -> Records:
        """Return the records `start` to `start + length`, with the same context."""
        history = None if self.history is None else self.history.slice(start, length)
        table = None if self.table is None else self.table.slice(start, length).combine_chunks()
        rows = self.rows[start : start + length]
        return Records(self.side, self.ids.slice(start, length), rows, table, self.context, history)

    def required_table(self) -> pa.Table:
        """Return `table`. Raises ValueError if only ids were given."""
        if self.table is None:
            raise ValueError("only ids were given, no records")
        return self.table

    @property
    def active(self) -> np.ndarray:
        """(rows,) bool: users with interactions in the request."""
        active = np.zeros(len(self.ids), bool)
        if self.history is not None:
            active[self.history.owners] = True
            active |= self.history.replaces
        return active

    @property
    def bare(self) -> np.ndarray:
        """(rows,) bool: records without any feature value."""
        bare = np.ones(len(self.ids), bool)
        if self.table is not None:
            for name in self.table.column_names:
                if name != f"{self.side}_id":
                    bare &= self.table.column(name).is_null().to_numpy()
        return bare


def before_interactions(records: Records) -> Records:
    """Return the users without the interactions of the request, but with the lists in their records."""
    history = records.history
    if history is None:
        return records
    listed = history.take(np.flatnonzero(history.listed)) if history.replaces.any() else None
    return replace(records, history=listed)


def pointer(side: Side, row: int, name: str) -> str:
    """Return the JSON pointer of a record's value in a request."""
    return f"/{side}_data/{row}/{name.replace('.', '/', 1)}"


def counted(count: int, what: str) -> str:
    """Return a number with its noun: 1 record, 2 records."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def conformed(table: pa.Table, known: pa.Table, side: Side, faults: list[Fault]) -> pa.Table:
    """Cast the columns of records to the types of the model's own table.

    A list of one value becomes that value, and a value becomes a list of one, as the model's column requires. Lists of
    several texts, categories or images stay lists, which their encoders read.

    Args:
        table: The records.
        known: The model's own records of that side.
        side: The side.
        faults: Gets a fault for each column with values that cannot be cast; these values become null.
    """
    for place, name in enumerate(table.column_names):
        if name == f"{side}_id" or name not in known.column_names:
            continue
        column, wanted = table.column(name).combine_chunks(), known.schema.field(name).type
        if column.type == wanted:
            continue
        table = table.set_column(place, name, _conformed(column, wanted, name, side, faults))
    return table


def _conformed(column: pa.Array, wanted: pa.DataType, name: str, side: Side, faults: list[Fault]) -> pa.Array:
    if pa.types.is_list(column.type) and not pa.types.is_list(wanted):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        several = lengths > 1
        if several.any() and name.split(".")[0] in ("text", "categorical", "image"):
            return column
        if several.any():
            row = int(np.argmax(several))
            count = counted(int(several.sum()), "record")
            what = f"one value is expected; found a list, {show(column[row].as_py())} ({count}): not read."
            faults.append(Fault(pointer(side, row, name), what, "Give one value.", "list"))
        offsets = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        place = pa.array(np.minimum(offsets, max(0, int(lengths.sum()) - 1)), mask=lengths != 1)
        values = column.flatten()
        column = values.take(place) if len(values) else pa.nulls(len(column), values.type)
    elif pa.types.is_list(wanted) and not pa.types.is_list(column.type):
        column = _listed(column)
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        count = len(column) - column.null_count
        row = int(np.argmax(column.is_valid().to_numpy(zero_copy_only=False)))
        what = f"the model holds {wanted} here; found {column.type} ({counted(count, 'record')}): not read."
        faults.append(Fault(pointer(side, row, name), what, kind="type"))
        return pa.nulls(len(column), wanted)


def unknown_features(table: pa.Table, known: Dataset, side: Side, also: set[str]) -> list[Fault]:
    """Return a fault for each feature that the model does not know.

    Args:
        table: The records.
        known: The model's users and items.
        side: The side.
        also: Columns that are no features but are read nevertheless.
    """
    features = known.features(side)
    groups = sorted({name.split(".")[0] for name in features})
    faults = []
    for name in table.column_names:
        if name == f"{side}_id" or name in features or name in also:
            continue
        column = table.column(name).combine_chunks()
        count = len(column) - column.null_count
        if not count:
            continue
        row = int(np.argmax(column.is_valid().to_numpy(zero_copy_only=False)))
        group, _, field = name.partition(".")
        same = [one for one in features if one.split(".", 1)[1] == field]
        if group not in groups and not same:
            what, near = f"the model knows no feature group '{group}' of {side}s", suggestion(group, groups)
        else:
            what = f"the model knows no {side} feature '{name}'"
            near = f"Did you mean '{same[0]}'?" if same else suggestion(name, features)
        what += f" ({counted(count, 'record')}): not read."
        if name.startswith("temporal.") and not same and _holds_ids(column):
            near += (
                f" A list of the user's items is read if data.history names it, or under a name as {HISTORY_NAMES[0]}."
            )
        faults.append(Fault(pointer(side, row, name), what, near, "unknown feature"))
    return faults


def unseen_categories(table: pa.Table, side: Side, names: list[str], vocabulary: dict[str, pa.Array]) -> list[Fault]:
    """Return a fault for each categorical feature with values that no record of the model has.

    Args:
        table: The records.
        side: The side.
        names: The categorical features that the model reads.
        vocabulary: The known categories of each feature.
    """
    faults = []
    for name in names:
        if name not in table.column_names or name not in vocabulary:
            continue
        values, owners = flat(table.column(name).combine_chunks())
        seen = vocabulary[name]
        new = pc.invert(pc.is_in(values.cast(seen.type), value_set=seen)).to_numpy(zero_copy_only=False)
        if not new.any():
            continue
        distinct = values.filter(pa.array(new)).unique()
        shown = ", ".join(f"'{one}'" for one in distinct.slice(0, NAMED).to_pylist())
        more = f" and {len(distinct) - NAMED:,} more" if len(distinct) > NAMED else ""
        row, records = int(owners[new][0]), len(np.unique(owners[new]))
        noun = "the category" if len(distinct) == 1 else "the categories"
        what = f"the model never saw {noun} {shown}{more} ({counted(records, 'record')})."
        near = suggestion(str(distinct[0].as_py()), [str(one) for one in seen.to_pylist()])
        faults.append(Fault(pointer(side, row, name), what, near, "unseen category"))
    return faults


def suggestion(name: str, known: list[str]) -> str:
    """Return a hint with the known name that is most similar to `name`; if none is, with the first known names."""
    folded = {one.lower(): one for one in known}
    if name.lower() in folded:
        return f"Did you mean '{folded[name.lower()]}'?"
    near = get_close_matches(name[:100], known[:10_000], n=1, cutoff=0.5)
    if near:
        return f"Did you mean '{near[0]}'?"
    if not known:
        return "It knows none."
    more = f", ... ({len(known):,} in all)" if len(known) > SUGGESTED else ""
    return "Known: " + ", ".join(known[:SUGGESTED]) + more + "."


def completed(known: pa.Table, records: pa.Table | None, rows: np.ndarray, key: str = "user_id") -> pa.Table:
    """Fill the missing values of records from the known records.

    Args:
        known: The known records.
        records: The records to fill; None for the known records `rows` themselves.
        rows: (records,) the row of each record in `known`; -1 for a record that is not to be filled.
        key: The id column, which stays as it is.
    """
    place = pa.array(rows, mask=rows < 0)
    if records is None:
        return known.take(place)
    columns = {key: records.column(key).combine_chunks()}
    for name in dict.fromkeys([*known.column_names, *records.column_names]):
        if name == key:
            continue
        own = records.column(name).combine_chunks() if name in records.column_names else None
        if name not in known.column_names:
            columns[name] = own
            continue
        column = known.column(name).combine_chunks()
        columns[name] = column.take(place) if own is None else _coalesce(own, column, place)
    return pa.table(columns)


def joined(known: pa.Table, new: pa.Table) -> pa.Table:
    """Concatenate two tables. A column that is a list in one of them becomes a list in both.

    The ids are one array, which every request reads. Other columns stay in chunks, each of which is longer than the
    next one: to append a record copies a few records, not the catalogue.
    """
    for name in new.column_names:
        if name in known.column_names and new.schema.field(name).type != known.schema.field(name).type:
            mine = known.column(name).combine_chunks()
            if pa.types.is_list(new.schema.field(name).type) and not pa.types.is_list(mine.type):
                known = known.set_column(known.column_names.index(name), name, _listed(mine))
    table = pa.concat_tables([known, new], promote_options="permissive")
    columns = [
        column.combine_chunks() if name in ID_COLUMNS else _in_few_chunks(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(columns, table.schema)


def _in_few_chunks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column whose chunks are each longer than the next one."""
    chunks: list[pa.Array] = []
    for chunk in column.chunks:
        chunks.append(chunk)
        while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
            chunks[-2:] = [pa.concat_arrays(chunks[-2:])]
    return pa.chunked_array(chunks, column.type)


def new_items(known: Dataset, records: Records) -> tuple[Dataset, Records]:
    """Return the known records with those of new items, and the new items alone, with ids of the known ones' type.

    Args:
        known: The known users and items.
        records: Items, of which those with unknown ids are new.

    Raises:
        DataError: If the ids have another type than the known ones.
    """
    unknown = records.rows < 0
    if of_other_type(records.ids, known.ids("item")):
        kinds = type_name(known.ids("item")), show(records.ids[int(np.argmax(unknown))].as_py())
        what = f"the ids of this model's items are {kinds[0]}; found {kinds[1]}."
        raise DataError(Fault("/item_data/0/item_id", what, "Write all ids of one type.", "id type"))
    ids = records.ids.filter(pa.array(unknown)).cast(known.ids("item").type)
    table = records.required_table().filter(pa.array(unknown))
    table = table.set_column(table.column_names.index("item_id"), "item_id", ids)
    wider = Dataset(known.users, joined(known.items, table), known.interactions, known.root, known.roles, known.notes)
    return wider, replace(records, ids=ids, rows=records.rows[unknown], table=table)


def with_changed_items(dataset: Dataset, records: Records) -> Dataset:
    """Return the dataset with the records of a request instead of those of the same known items."""
    known = records.rows >= 0
    table = records.required_table().filter(pa.array(known))
    place = np.arange(len(dataset.items))
    place[records.rows[known]] = len(place) + np.arange(len(table))
    return dataset.with_features(items=joined(dataset.items, table).take(pa.array(place)).combine_chunks())


def changed_items(dataset: Dataset, records: Records, files: Set[str]) -> Records:
    """Return the items of a request that are new, or whose known record has other values.

    Records that name files count as changed: the files can be others under the same names. Records without any value do
    not: the id alone only names the item.

    Args:
        dataset: The known items.
        records: The items of the request.
        files: Groups and features whose values name files, as `file_features` returns them.
    """
    new, table = records.rows < 0, records.required_table()
    known, changed = dataset.items.take(pa.array(records.rows, mask=new)), new.copy()
    for name in set(known.column_names).union(table.column_names) - {"item_id"}:
        both = [one.column(name).combine_chunks() for one in (table, known) if name in one.column_names]
        if len(both) == 1 or both[0].type != both[1].type or {name, name.split(".")[0]} & files:
            for column in both:
                changed |= column.is_valid().to_numpy(zero_copy_only=False)
        else:
            codes = codes_of(pa.concat_arrays(both))
            changed |= codes[: len(changed)] != codes[len(changed) :]
    changed &= new | ~records.bare
    mask = pa.array(changed)
    return replace(records, ids=records.ids.filter(mask), rows=records.rows[changed], table=table.filter(mask))


def _coalesce(own: pa.Array, known: pa.Array, place: pa.Array) -> pa.Array:
    """Return `own` (rows,), with its nulls replaced by `known[place]`."""
    if pa.types.is_list(own.type) and not pa.types.is_list(known.type):
        known = _listed(known)
    if own.type != known.type:
        try:
            own = own.cast(known.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            return own
    after = pa.array(np.arange(len(known), len(known) + len(own)))
    return pa.concat_arrays([known, own]).take(pc.if_else(own.is_valid(), after, place))


def _holds_ids(column: pa.Array) -> bool:
    return pa.types.is_list(column.type) and (
        pa.types.is_string(column.type.value_type) or pa.types.is_integer(column.type.value_type)
    )


def _listed(column: pa.Array) -> pa.Array:
    """Return each value as a list of one value; null stays null."""
    offsets = np.concatenate([[0], np.cumsum(column.is_valid().to_numpy(zero_copy_only=False))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), column.drop_null(), mask=column.is_null())
