"""What only the whole data can show: duplicate ids, ids that no record has, empty parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.values import show
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place, json_place
from anyrec.data.ids import rows_of


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
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The tables, interactions of unknown ids dropped or given records if the options say so; faults are added.

    partial: records for inference, where parts may be empty and ids unknown. places: of the rows of users, items and
    interactions, by default those of a JSON document.
    """
    notes = [] if notes is None else notes
    places = places or [json_place(part) for part in ("user_data", "item_data", "interactions")]
    where = {"user": places[0], "item": places[1], "": places[2]}
    if "label" in interactions.column_names:
        interactions = _checked_labels(interactions, faults, where[""])
    if "weight" in interactions.column_names:
        _check_weights(interactions, faults, where[""])
    tables = {"user": users, "item": items}
    for side, table in tables.items():
        _check_duplicates(table.column(f"{side}_id"), side, faults, where[side])
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
    if options.unknown_ids == "drop":
        for side in ("user", "item"):
            absent = interactions.column(f"{side}_id").is_null().to_numpy()
            if absent.any():
                notes.append(f"{int(absent.sum()):,} interactions were dropped: they have no {side}_id.")
                known &= ~absent
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
            _add_unknown(column, tables[side].column(f"{side}_id"), np.flatnonzero(missing), side, faults, where[""])
    if options.unknown_ids == "drop" and len(interactions) and not known.any():
        what = "every interaction was dropped: none has a user and an item with a record."
        faults.add("empty data", "data.unknown_ids", what, "See that ids are written in the same way everywhere.")
    return tables["user"], tables["item"], interactions if known.all() else interactions.filter(pa.array(known))


def _check_duplicates(ids: pa.ChunkedArray, side: str, faults: Faults, place: Place) -> None:
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
    column: pa.ChunkedArray, ids: pa.ChunkedArray, rows: np.ndarray, side: str, faults: Faults, place: Place
) -> None:
    other_type = column.type != ids.type and len(ids)
    names = {True: "whole numbers", False: "texts"}
    hint = (
        f"Ids are {names[pa.types.is_integer(column.type)]} here and {names[pa.types.is_integer(ids.type)]} in the {side} records: write both in the same way."
        if other_type
        else "Add its record, correct the id, or set data.unknown_ids to 'drop' or 'keep'."
    )
    faults.add_rows(
        "unknown id",
        rows,
        lambda row: (
            place(row, f"{side}_id"),
            f"no record in {side}_data has the id {show(column[row].as_py())}.",
            hint,
        ),
    )


def _with_new_ids(table: pa.Table, side: str, ids: pa.ChunkedArray) -> pa.Table:
    key = f"{side}_id"
    if not len(table):
        return pa.table({key: pc.unique(ids)})
    return pa.concat_tables([table, pa.table({key: pc.unique(ids)})], promote_options="permissive")


def _checked_labels(interactions: pa.Table, faults: Faults, place: Place) -> pa.Table:
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
