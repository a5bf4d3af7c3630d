"""What only the whole data can show: duplicate ids, ids that no record has, empty parts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.config import DataConfig
from anyrec.data.columns import Faults, show
from anyrec.data.dataset import rows_of


def check_tables(
    users: pa.Table,
    items: pa.Table,
    interactions: pa.Table,
    faults: Faults,
    options: DataConfig,
    *,
    partial: bool = False,
    notes: list[str] | None = None,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The tables, interactions of unknown ids dropped or given records where the options say so; faults are added.

    partial: records for inference, where parts may be empty and ids unknown.
    """
    notes = [] if notes is None else notes
    if "label" in interactions.column_names:
        interactions = _checked_labels(interactions, faults)
    tables = {"user": users, "item": items}
    for side, table in tables.items():
        _check_duplicates(table.column(f"{side}_id"), side, faults)
        if not partial and not len(table) and options.unknown_ids != "keep":
            faults.add(
                "empty data", f"/{side}_data", f"there is no {side}.", "Add records, or set data.unknown_ids to 'keep'."
            )
    if not partial and not len(interactions):
        faults.add(
            "empty data", "/interactions", "there is no interaction.", "Add some: a recommender learns from them."
        )
    if partial:
        return users, items, interactions
    known = np.ones(len(interactions), bool)
    for side in ("user", "item"):
        column = interactions.column(f"{side}_id")
        missing = (
            rows_of(column, tables[side].column(f"{side}_id").combine_chunks()) < 0
        ) & column.is_valid().to_numpy()
        if not missing.any():
            continue
        if options.unknown_ids == "keep":
            tables[side] = _with_new_ids(tables[side], side, column.filter(pa.array(missing)))
            notes.append(
                f"{side.capitalize()}s without a record: {len(pc.unique(column.filter(pa.array(missing)))):,} are known by id alone."
            )
        elif options.unknown_ids == "drop":
            known &= ~missing
            notes.append(f"{int(missing.sum()):,} interactions were dropped: no record has their {side}_id.")
        else:
            _add_unknown(column, tables[side].column(f"{side}_id"), np.flatnonzero(missing), side, faults)
    return tables["user"], tables["item"], interactions if known.all() else interactions.filter(pa.array(known))


def _check_duplicates(ids: pa.ChunkedArray, side: str, faults: Faults) -> None:
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
            f"/{side}_data/{row}/{side}_id",
            f"{show(ids[row].as_py())} is the id of /{side}_data/{first[places[row]]} as well.",
            "Give each record its own id, or leave one of the two out.",
        ),
    )


def _add_unknown(column: pa.ChunkedArray, ids: pa.ChunkedArray, rows: np.ndarray, side: str, faults: Faults) -> None:
    other_type = column.type != ids.type and len(ids)
    names = {True: "whole numbers", False: "texts"}
    hint = (
        f"Ids are {names[pa.types.is_integer(column.type)]} here and {names[pa.types.is_integer(ids.type)]} in {side}_data: write them alike."
        if other_type
        else "Add its record, mend the id, or set data.unknown_ids to 'drop' or 'keep'."
    )
    faults.add_rows(
        "unknown id",
        rows,
        lambda row: (
            f"/interactions/{row}/{side}_id",
            f"no record in {side}_data has the id {show(column[row].as_py())}.",
            hint,
        ),
    )


def _with_new_ids(table: pa.Table, side: str, ids: pa.ChunkedArray) -> pa.Table:
    key = f"{side}_id"
    if not len(table):
        return pa.table({key: pc.unique(ids)})
    return pa.concat_tables([table, pa.table({key: pc.unique(ids)})], promote_options="permissive")


def _checked_labels(interactions: pa.Table, faults: Faults) -> pa.Table:
    column = interactions.column("label").combine_chunks().cast(pa.float64())
    good = pc.fill_null(pc.is_in(column, value_set=pa.array([0.0, 1.0])), False)
    wrong = np.flatnonzero(pc.and_(column.is_valid(), pc.invert(good)).to_numpy(zero_copy_only=False))
    faults.add_rows(
        "bad label",
        wrong,
        lambda row: (
            f"/interactions/{row}/label",
            f"a label is 0 or 1; found {show(column[row].as_py())}.",
            "Put strengths in 'rating' or 'weight'.",
        ),
    )
    labels = pc.if_else(good, column, None).cast(pa.int8())
    return interactions.set_column(interactions.column_names.index("label"), "label", labels)
