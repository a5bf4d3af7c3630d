"""Checks that need the whole data: duplicate ids, ids without a record, empty parts, labels, weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.scratch import Scratch, filtered
from anyrec.core.values import show
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place, json_place
from anyrec.data.ids import ID_COLUMNS, SIDES, Side, rows_of
from anyrec.data.list_columns import one_chunk


def check_tables(
    users: pa.Table,
    items: pa.Table,
    interactions: pa.Table,
    faults: Faults,
    options: DataConfig,
    *,
    partial: bool = False,
    notes: list[str] | None = None,
    places: Sequence[Place] | None = None,
    rows: dict[Side, np.ndarray] | None = None,
    scratch: Scratch | None = None,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Check users, items and interactions as a whole.

    Interactions with unknown ids are faults; under `options.unknown_ids` they are dropped, or their ids get records.

    Args:
        users: Table with `user_id`.
        items: Table with `item_id`.
        interactions: Table with `user_id` and `item_id`.
        faults: Gets the faults.
        options: The config's `data` section.
        partial: Whether these are records for inference, where parts may be empty and ids unknown.
        notes: Gets sentences on what was dropped or added.
        places: Where the rows of the three tables are in their source; by default in a JSON document.
        rows: Gets (interactions,) the row of each one's user and item, if no interaction is dropped and no id added.
        scratch: Where interactions are kept; None for memory.

    Returns:
        The three tables.
    """
    notes = [] if notes is None else notes
    places = places or [json_place(part) for part in ("user_data", "item_data", "interactions")]
    if "label" in interactions.column_names:
        interactions = _checked_labels(interactions, faults, places[2])
    if "weight" in interactions.column_names:
        _check_weights(interactions, faults, places[2])
    tables: dict[Side, pa.Table] = {"user": users, "item": items}
    for side, place in zip(SIDES, places[:2], strict=True):
        _check_duplicates(tables[side].column(f"{side}_id"), side, faults, place)
    if partial:
        return users, items, interactions
    _check_empty(tables, interactions, faults, options)
    rows = {} if rows is None else rows
    known = _with_records(tables, interactions, faults, options, notes, places[2], rows)
    if options.unknown_ids == "drop" and len(interactions) and not known.any():
        what = "every interaction was dropped: none has a user and an item with a record."
        hint = "Check that ids are written in the same way in all parts."
        faults.add("empty data", "data.unknown_ids", what, hint)
    return tables["user"], tables["item"], interactions if known.all() else filtered(interactions, known, scratch)


def _with_records(
    tables: dict[Side, pa.Table],
    interactions: pa.Table,
    faults: Faults,
    options: DataConfig,
    notes: list[str],
    place: Place,
    rows: dict[Side, np.ndarray],
) -> np.ndarray:
    """Return (interactions,) bool, which interactions are kept as `options.unknown_ids` says.

    Under "keep", records of unknown ids are added to `tables`. Under "error", unknown ids are faults.
    """
    known = np.ones(len(interactions), bool)
    if options.unknown_ids == "drop":
        known &= _with_ids(interactions, notes)
    for side in SIDES:
        column, ids = interactions.column(f"{side}_id"), tables[side].column(f"{side}_id")
        found = rows_of(column, one_chunk(ids))
        missing = (found < 0) & column.is_valid().to_numpy()
        if not missing.any():
            rows[side] = found
            continue
        if options.unknown_ids == "keep":
            new = pc.unique(column.filter(pa.array(missing)))
            tables[side] = with_new_ids(tables[side], side, new)
            notes.append(f"{side.capitalize()}s without a record: {len(new):,} are known by id alone.")
        elif options.unknown_ids == "drop":
            known &= ~missing
            notes.append(f"{int(missing.sum()):,} interactions were dropped: no record has their {side}_id.")
        elif pc.count_distinct(column.filter(pa.array(missing))).as_py() > _without_id(ids):
            _add_unknown(column, ids, np.flatnonzero(missing), side, faults, place)
    if not known.all():
        rows.clear()
    return known


def _without_id(ids: pa.ChunkedArray) -> float:
    """Return how many ids of interactions may be unknown because of faults that are reported already.

    These are as many as records have no valid id, and all if there is no record.
    """
    return ids.null_count + (pc.sum(pc.equal(ids, "")).as_py() or 0 if pa.types.is_string(ids.type) else 0) or (
        float("inf") if not len(ids) else 0
    )


def _check_empty(tables: dict[Side, pa.Table], interactions: pa.Table, faults: Faults, options: DataConfig) -> None:
    reported = {fault.where for fault in faults.shown}
    for side, table in tables.items():
        if not len(table) and options.unknown_ids != "keep" and f"/{side}_data" not in reported:
            hint = "Add records, or set data.unknown_ids to 'keep'."
            faults.add("empty data", f"/{side}_data", f"there is no {side}.", hint)
    if not len(interactions) and "/interactions" not in reported:
        hint = "Add some: a recommender learns from them."
        faults.add("empty data", "/interactions", "there is no interaction.", hint)


def _with_ids(interactions: pa.Table, notes: list[str]) -> np.ndarray:
    """Return (interactions,) bool, which interactions have both ids, and note how many have not."""
    known = np.ones(len(interactions), bool)
    for key in ID_COLUMNS:
        absent = interactions.column(key).is_null().to_numpy()
        if absent.any():
            notes.append(f"{int(absent.sum()):,} interactions were dropped: they have no {key}.")
            known &= ~absent
    return known


def _check_duplicates(ids: pa.ChunkedArray, side: Side, faults: Faults, place: Place) -> None:
    """Add a fault for each id that an earlier record has."""
    if len(pc.unique(ids)) == len(ids):
        return
    places = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy()
    _, first = np.unique(places, return_index=True)
    again = np.setdiff1d(np.arange(len(ids)), first)
    again = again[ids.is_valid().to_numpy()[again]]
    faults.add_rows(
        "duplicate id",
        again,
        lambda row: (
            place(row, f"{side}_id"),
            f"{show(ids[row].as_py())} is the id of {place(int(first[places[row]]), '')} as well.",
            "Give each record its own id, or leave one of the two out.",
        ),
    )


def _add_unknown(
    column: pa.ChunkedArray, ids: pa.ChunkedArray, rows: np.ndarray, side: Side, faults: Faults, place: Place
) -> None:
    """Add a fault for each of the interactions `rows`, whose ids in `column` no record has among `ids`."""
    hint = "Add its record, correct the id, or set data.unknown_ids to 'drop' or 'keep'."
    if column.type != ids.type:
        names = {True: "whole numbers", False: "texts"}
        here, there = names[pa.types.is_integer(column.type)], names[pa.types.is_integer(ids.type)]
        what = f"{side} ids are {here} here and {there} in the {side} records, so that none of {len(rows):,} is known."
        faults.add("unknown id", place(int(rows[0]), f"{side}_id"), what, "Write both in the same way.")
        return
    faults.add_rows(
        "unknown id",
        rows,
        lambda row: (
            place(row, f"{side}_id"),
            f"no record in {side}_data has the id {show(column[row].as_py())}.",
            hint,
        ),
    )


def with_new_ids(table: pa.Table, side: Side, ids: pa.Array) -> pa.Table:
    """Return the table with a record for each of the ids, which has no features."""
    new = pa.table({f"{side}_id": ids})
    return pa.concat_tables([table, new], promote_options="permissive") if len(table) else new


def _checked_labels(interactions: pa.Table, faults: Faults, place: Place) -> pa.Table:
    """Return the interactions with labels as int8; a label other than 0 and 1 is a fault."""
    column = interactions.column("label").combine_chunks().cast(pa.float64())
    good = pc.fill_null(pc.or_(pc.equal(column, 0.0), pc.equal(column, 1.0)), False)  # -0.0 equals 0.0
    wrong = np.flatnonzero(pc.and_(column.is_valid(), pc.invert(good)).to_numpy(zero_copy_only=False))
    faults.add_rows(
        "bad label",
        wrong,
        lambda row: (
            place(row, "label"),
            f"a label is 0 or 1; found {show(column[row].as_py())}.",
            "Put strengths in 'rating' or 'weight'.",
        ),
    )
    labels = pc.if_else(good, column, None).cast(pa.int8())
    return interactions.set_column(interactions.column_names.index("label"), "label", labels)


def _check_weights(interactions: pa.Table, faults: Faults, place: Place) -> None:
    """Add a fault for each weight below 0."""
    weights = interactions.column("weight")
    wrong = np.flatnonzero(pc.fill_null(pc.less(weights, 0.0), False).to_numpy())
    faults.add_rows(
        "bad weight",
        wrong,
        lambda row: (
            place(row, "weight"),
            f"a weight is 0 or more; found {show(weights[row].as_py())}.",
            "Give dislikes a label of 0; leave out rows that do not count.",
        ),
    )
