"""All tables of the config as users, items and interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.config.sources import SourcesConfig
from anyrec.core.registry import Registry
from anyrec.core.scratch import Scratch, kept
from anyrec.core.values import show
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.frames import DataFrame
from anyrec.data.formats.parts import PARTS, SIDE_OF, Part
from anyrec.data.formats.places import Place, place_among
from anyrec.data.formats.table_columns import Columns, normalised
from anyrec.data.ids import NO_TIME, SIDES, Side
from anyrec.data.list_columns import as_lists, is_list
from anyrec.data.memory_limit import Room
from anyrec.data.sources.contract import Access
from anyrec.data.sources.groups import Groups
from anyrec.data.sources.id_types import IdColumn, one_type
from anyrec.data.sources.map_table import Mapped, Reader, map_table
from anyrec.data.sources.nested import one_array

ORDER = {"user_id": 0, "item_id": 1}
"""Columns before all others, which are in the order of their names."""


def read_tables(
    options: DataConfig,
    registry: Registry,
    faults: Faults,
    notes: list[str],
    tables: Mapping[str, DataFrame],
    room: Room,
) -> tuple[list[Part], dict[str, str]]:
    """Read the tables of `data.sources`.

    Args:
        options: The config's `data` section, with sources.
        registry: The components.
        faults: Gets the faults of the rows.
        notes: Gets what the user should know.
        tables: Data frames by the paths that they stand for.
        room: Where interactions are kept.

    Returns:
        Users, items and interactions, and what identifies the content of each table by its name.

    Raises:
        ConfigError: If the sources name columns that are not there.
        DataError: If a table cannot be read.
    """
    sources = options.sources or SourcesConfig()
    access = Access(Path(sources.root or ""), options.allow_urls, faults=faults)
    reader = Reader(registry, access, tables, notes, room)
    mapped: dict[str, list[Mapped]] = {}
    for part in PARTS:
        reader.access = replace(access, part=part)
        mapped[part] = [
            map_table(table, f"/data/sources/{part}/{n}", reader, room if part == "interactions" else None)
            for n, table in enumerate(getattr(sources, part))
        ]
    for side in SIDES:
        _type_ids(mapped, side, faults, notes, room)
    item_ids = _item_ids(mapped)
    records = [_records(mapped, part, item_ids, reader) for part in SIDE_OF]
    return [*records, _interactions(mapped["interactions"], options, reader)], reader.versions


def _type_ids(mapped: dict[str, list[Mapped]], side: Side, faults: Faults, notes: list[str], room: Room) -> None:
    """Give the ids of one side one type in all tables."""
    key = f"{side}_id"
    found = [one for part in (f"{side}s", "interactions") for one in mapped[part] if key in one.columns]
    columns = [
        IdColumn(one.columns[key], one.untyped, one.mixed.get(key, []), one.at(key, faults, notes)) for one in found
    ]
    one_type(columns)
    for one, column in zip(found, columns, strict=True):
        one.columns[key] = kept(column.values, room.scratch)


def _item_ids(mapped: dict[str, list[Mapped]]) -> pa.Array | None:
    """Return the ids of the items if they are texts: numerals of temporal columns may be such ids."""
    found = [one.columns["item_id"] for part in ("items", "interactions") for one in mapped[part]]
    if not found or not all(pa.types.is_string(one.type) for one in found):
        return None
    return pc.unique(pa.chunked_array(found))


def _interactions(mapped: list[Mapped], options: DataConfig, reader: Reader) -> Part:
    """Return the interactions of all tables, in their order."""
    tables, scratch, missing_ok = [], reader.room.scratch, options.unknown_ids == "drop"
    places = [replace(one, columns={}) for one in mapped]
    for one in mapped:
        one.columns = {name: column for name, column in one.columns.items() if name.split(".")[0] not in SIDES}
        tables.append(_typed(one, "interactions", None, reader, missing_ok, scratch))
        one.columns = {}
    table = stacked(tables)
    table = table.combine_chunks() if scratch is None else scratch.keep_columns(table)
    return Part(table, place_among([(one.rows, one.place) for one in places]))


def _records(mapped: dict[str, list[Mapped]], part: str, item_ids: pa.Array | None, reader: Reader) -> Part:
    """Return the records of one side: those of its own tables, completed by what the interactions say of them.

    Without tables of its own, a side has the records that the interactions name.
    """
    side = SIDE_OF[part]
    own = [_one_row_each(one, side, reader) for one in mapped[part]]
    said = [_derived(one, side) for one in mapped["interactions"]]
    described = [_latest(one, side, reader) for one in said if len(one.columns) > 1 or not own]
    tables = [_typed(one, part, item_ids, reader) for one in (*own, *described)]
    table, place = stacked(tables), place_among([(one.rows, one.place) for one in (*own, *described)])
    if len(tables) == 1:
        return Part(table, place)
    key = f"{side}_id"
    groups = Groups(one_array(table.column(key)))
    columns = {key: groups.keys}
    for name in table.column_names:
        if name != key:
            columns[name], differing = groups.first(one_array(table.column(name)))
            if len(differing):
                _note_differences(one_array(table.column(name)), groups, differing, part, name, "the first", reader)
    return Part(pa.table(columns), _place_of_first(groups, place))


def _derived(one: Mapped, side: Side) -> Mapped:
    """Return the records that a table of interactions describes by columns such as `item.text.title`."""
    start, key = f"{side}.", f"{side}_id"
    columns = {name.removeprefix(start): column for name, column in one.columns.items() if name.startswith(start)}
    place, times = one.place, one.columns.get("timestamp")
    if times is not None and pa.types.is_timestamp(times.type):
        one = replace(one, times=pc.fill_null(times.cast(pa.int64()), NO_TIME + 1).to_numpy(zero_copy_only=False))
    return replace(
        one,
        columns={key: one.columns[key], **columns},
        config=one.config.model_copy(update={"repeats": "latest"}),
        place=lambda row, column: place(row, column if column == key else start + column),
    )


def _one_row_each(one: Mapped, side: Side, reader: Reader) -> Mapped:
    """Return a table of records with one row for each id. An id that occurs again is a fault unless it is declared."""
    ids, key = one.columns[f"{side}_id"], f"{side}_id"
    groups = Groups(ids)
    aggregated = any(spec.aggregate is not None for spec in one.specs.values())
    if len(groups) == one.rows:
        return one
    missing = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
    faults, place = reader.access.faults, one.place
    faults.add_rows("bad id", missing, lambda row: (place(row, key), "the id is missing.", "Give it an id."))
    if not aggregated and one.config.repeats == "error":
        hint = "Set `repeats` of this table to latest or first, or `aggregate` of its columns."
        faults.add_rows(
            "duplicate id",
            groups.repeated(),
            lambda row: (place(row, key), f"{show(ids[row].as_py())} occurs again.", hint),
        )
    order = np.arange(one.rows)
    return _collapsed(one, key, groups, order[::-1] if one.config.repeats == "latest" else order, reader)


def _latest(one: Mapped, side: Side, reader: Reader) -> Mapped:
    """Return the records that interactions describe, each with its latest values."""
    ids = one.columns[f"{side}_id"]
    if len(one.columns) == 1:
        keys = pc.unique(ids).drop_null()

        def place(row: int, column: str) -> str:
            return one.place(pc.index(ids, keys[row]).as_py(), column)

        return replace(one, columns={f"{side}_id": keys}, rows=len(keys), place=place, mixed={})
    groups = Groups(ids)
    order = np.arange(one.rows)[::-1]
    if one.times is not None:
        order = order[np.argsort(-one.times[order], kind="stable")]  # the latest first, of one time the last row
    return _collapsed(one, f"{side}_id", groups, order, reader)


def _collapsed(one: Mapped, key: str, groups: Groups, order: np.ndarray, reader: Reader) -> Mapped:
    """Return one row for each id: aggregates, and the first value in an order of the rows."""
    columns = {key: groups.keys}
    for name, column in one.columns.items():
        spec = one.specs.get(name)
        if name == key:
            continue
        if spec is not None and spec.aggregate is not None:
            columns[name] = groups.aggregate(column, spec.aggregate, one.at(name, reader.access.faults, reader.notes))
            continue
        columns[name], differing = groups.first(column, order)
        if len(differing) and one.config.repeats != "error":
            _note_differences(column, groups, differing, one.name, name, "the latest", reader)
    return replace(one, columns=columns, rows=len(groups), place=_place_of_first(groups, one.place), mixed={})


def _place_of_first(groups: Groups, place: Place) -> Place:
    """Return the places of the first row of each key; place: Of all rows."""
    return lambda row, column: place(int(np.flatnonzero(groups.codes == row)[0]), column)


def _note_differences(
    column: pa.Array, groups: Groups, differing: np.ndarray, table: str, name: str, chosen: str, reader: Reader
) -> None:
    """Say how many ids have several values of a feature, with an example."""
    rows = np.flatnonzero(groups.codes == differing[0])
    values = list(dict.fromkeys(show(column[int(row)].as_py(), 30) for row in rows[:100] if column[int(row)].is_valid))
    example = f"{show(groups.keys[differing[0]].as_py())}: {' and '.join(values[:2])}"
    count = "1 id has" if len(differing) == 1 else f"{len(differing):,} ids have"
    reader.notes.append(f"{table}: {count} several values of {name}, for example {example}; {chosen} is used.")


def _typed(
    one: Mapped,
    part: str,
    item_ids: pa.Array | None,
    reader: Reader,
    missing_ok: bool = False,
    scratch: Scratch | None = None,
) -> pa.Table:
    """Return a table in the types of the dataset, the columns in the order of their names."""
    columns: Columns = sorted(one.columns.items(), key=lambda pair: (ORDER.get(pair[0], 2), pair[0]))
    return normalised(
        columns,
        one.rows,
        SIDE_OF.get(part, ""),
        one.name,
        one.place,
        reader.access.faults,
        reader.notes,
        missing_ok=missing_ok,
        item_ids=item_ids,
        scratch=scratch,
    )


def stacked(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of tables one after the other; a column that is of lists in one is of lists in all."""
    if len(tables) == 1:
        return tables[0]
    lists = {field.name for table in tables for field in table.schema if is_list(field.type)}
    wrapped = []
    for table in tables:
        for place, name in enumerate(table.column_names):
            column = one_array(table.column(place))
            if name in lists and not is_list(column.type):
                lengths = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
                table = table.set_column(place, name, as_lists(column.drop_null(), lengths, column.is_null()))
        wrapped.append(table)
    return pa.concat_tables(wrapped, promote_options="permissive")
