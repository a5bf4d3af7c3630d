"""Checks of the tables of a request, where parts may be empty and ids may be unknown to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.values import show
from anyrec.data.checks.temporal_roles import apply_roles
from anyrec.data.checks.validate import check_tables, with_new_ids
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place, json_place
from anyrec.data.histories import HISTORY_NAMES
from anyrec.data.ids import rows_of
from anyrec.data.tables import Tables


def check_request_tables(
    tables: tuple[pa.Table, pa.Table, pa.Table],
    faults: Faults,
    notes: list[str],
    options: DataConfig,
    roles: dict[str, str],
    root: Path,
    item_ids: pa.Array | None = None,
    user_ids: pa.Array | None = None,
    places: Sequence[Place] | None = None,
) -> Tables:
    """Check users, items and interactions of a request, whatever form it came in.

    If the request has no records of users, it is about the users of its interactions.

    Args:
        tables: Users, items and interactions.
        faults: Faults found so far.
        notes: Gets what the user should know.
        options: The config's `data` section.
        roles: What each temporal feature of the model holds.
        root: Folder that relative file names start from, unless `options.image_root` is set.
        item_ids: The items of the model, which lists of item ids refer to.
        user_ids: Users who need no record for their interactions; None if all need one.
        places: Where the rows of the three tables are in their source; by default in a JSON document.

    Raises:
        DataError: With every fault.
    """
    users, items, interactions = tables
    if not len(users):
        users = pa.table({"user_id": interactions.column("user_id").combine_chunks().unique().drop_null()})
    elif user_ids is not None:
        users = with_owners(users, interactions, user_ids)
    check_owners(users, interactions, faults, places[2] if places else None, are_known=user_ids is not None)
    check_tables(users, items, interactions, faults, options, partial=True, places=places)
    faults.raise_any()
    known = {**roles, **options.roles}
    if item_ids is not None:
        known = {**_history_roles(users, known, options, item_ids), **known}
    options_with_roles = options.model_copy(update={"roles": known})
    typed, items, found = apply_roles(users, items, options_with_roles, [], faults, places, item_ids)
    faults.raise_any()
    notes += _lost_ids(users, typed, found)
    image_root = Path(options.image_root) if options.image_root else root
    return Tables(typed, items, interactions, image_root, found, notes)


def with_owners(users: pa.Table, interactions: pa.Table, among: pa.Array | None = None) -> pa.Table:
    """Return the users with a record, which has no features, for each user who has interactions only.

    Args:
        users: Table with `user_id`.
        interactions: Table with `user_id`.
        among: The users who get such a record; None for all.
    """
    ids, owners = users.column("user_id").combine_chunks(), pc.unique(interactions.column("user_id")).drop_null()
    if len(ids) and pa.types.is_integer(ids.type) != pa.types.is_integer(owners.type):
        return users  # a fault that the checks report
    lost = rows_of(owners, ids.cast(owners.type)) < 0
    if among is not None:
        lost &= rows_of(owners, among) >= 0
    return with_new_ids(users, "user", owners.filter(pa.array(lost))) if lost.any() else users


def check_owners(
    users: pa.Table, interactions: pa.Table, faults: Faults, place: Place | None = None, *, are_known: bool = False
) -> None:
    """Add a fault for each interaction whose user has no record in the request.

    Args:
        users: Table with `user_id`.
        interactions: Table with `user_id`.
        faults: Gets the faults.
        place: Where the rows of the interactions are in their source; by default in a JSON document.
        are_known: Whether known users are among `users`, so that the model does not know the others.
    """
    unknown = ", and the model knows no such user" if are_known else ""
    owners, ids = interactions.column("user_id"), users.column("user_id").combine_chunks()
    lost = np.flatnonzero((rows_of(owners, ids) < 0) & owners.is_valid().to_numpy())
    place = place or json_place("interactions")
    faults.add_rows(
        "unknown user",
        lost,
        lambda row: (
            place(row, "user_id"),
            f"no record in user_data has the id {show(owners[row].as_py())}{unknown}.",
            "Add it to user_data; the id alone is enough.",
        ),
    )


def _history_roles(users: pa.Table, roles: dict[str, str], options: DataConfig, item_ids: pa.Array) -> dict[str, str]:
    """Return the role `items` for lists that their name and the type of their values show to be histories."""
    if options.history is not None:
        return {}
    found = {}
    for name in HISTORY_NAMES:
        column = f"temporal.{name}"
        if column in users.column_names and f"user.{name}" not in roles:
            values = users.column(column).type.value_type
            if pa.types.is_integer(values) == pa.types.is_integer(item_ids.type) and not pa.types.is_floating(values):
                found[f"user.{name}"] = "items"
    return found


def _lost_ids(given: pa.Table, typed: pa.Table, roles: dict[str, str]) -> list[str]:
    """Return sentences on lists of item ids that lost values because their ids are of another type than the model's.

    Args:
        given: The users as the request has them.
        typed: The same users with temporal columns typed by their roles.
        roles: What each temporal feature holds.
    """
    notes = []
    for name, role in roles.items():
        column = f"temporal.{name.removeprefix('user.')}"
        if not name.startswith("user.") or role != "items" or column not in given.column_names:
            continue
        before, after = (table.column(column).combine_chunks().flatten() for table in (given, typed))
        lost = after.null_count - before.null_count
        if lost > 0:
            notes.append(
                f"{lost:,} values of {column} are not read: they are of another type than the model's item ids "
                f"({after.type})."
            )
    return notes
