"""Scores, vectors, searches and records of a version that serves, with what came since the training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.ids import Id, Side
from anyrec.data.list_columns import one_chunk
from anyrec.model.records import Records
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.query import Query
from anyrec.serving.live.record_map import SEARCHED
from anyrec.serving.live.served import Served

FAULTS = 20
"""Unknown ids of each side that an error names."""


def known(served: Served, side: Side, ids: Sequence[Id], histories: Histories | None = None) -> list[bool]:
    """Return which ids are of users or items that the model has a record of, or of which anything came since.

    Args:
        served: The version.
        side: Whose ids.
        ids: The ids.
        histories: The events of users; None if these do not make a user known.
    """
    trained = served.knows(side, ids).tolist()
    if side == "item":
        return [there and one not in served.removed for one, there in zip(ids, trained, strict=True)]
    since = served.users.keys()
    return [
        there or one in since or (histories is not None and one in histories)
        for one, there in zip(ids, trained, strict=True)
    ]


def record_of(served: Served, side: Side, key: object) -> JsonObject | None:
    """Return the features of a user or an item as they serve: those that came since the training, or else its own.

    None for an unknown one, and for a key that is no id.
    """
    if not isinstance(key, str | int):
        return None
    since = served.users.get(key) if side == "user" else None
    if since is not None or not served.knows(side, [key])[0]:
        return since
    return served.records(side, [key])[0]


def check_known(served: Served, histories: Histories, users: Iterable[Id] = (), items: Iterable[Id] = ()) -> None:
    """Raise DataError with the unknown ones of some users and items."""
    faults, count = [], 0
    sides: tuple[tuple[Side, Iterable[Id]], ...] = (("user", users), ("item", items))
    for side, given in sides:
        ids = list(dict.fromkeys(given))
        missing = [one for one, there in zip(ids, known(served, side, ids, histories), strict=True) if not there]
        count += len(missing)
        faults += [
            Fault(f"{side}_id {show(one)}", f"the model knows no such {side}.", "Give its record.", "unknown id")
            for one in missing[:FAULTS]
        ]
    if faults:
        raise DataError(faults, {"unknown id": count})


def score(served: Served, histories: Histories, pairs: Sequence[tuple[Id, Id]]) -> list[JsonObject]:
    """Score pairs of a user and an item, with each head's prediction.

    Raises:
        DataError: For unknown ids.
    """
    check_known(served, histories, *zip(*pairs, strict=True))
    item_rows = served.rows("item", [item for _, item in pairs])
    found: dict[int, JsonObject] = {}
    for records in _people(served, histories, [user for user, _ in pairs]):
        place = {user: n for n, user in enumerate(records.ids.to_pylist())}
        own = [n for n, (user, _) in enumerate(pairs) if user in place]
        user_rows = np.array([place[pairs[n][0]] for n in own])
        columns = served.recommender.score_rows(records, user_rows, item_rows[own])
        found |= dict(zip(own, pa.table(columns).to_pylist(), strict=True))
    return [{"user_id": user, "item_id": item, **found[n]} for n, (user, item) in enumerate(pairs)]


def embed_users(served: Served, histories: Histories, ids: Sequence[Id]) -> list[JsonObject]:
    """Return the vectors of users. Raises DataError for unknown ids."""
    check_known(served, histories, users=ids)
    found: dict[Id, JsonObject] = {}
    for records in _people(served, histories, ids):
        found |= {row["user_id"]: row for row in served.recommender.embed_users(records).to_pylist()}
    return [found[one] for one in ids]


def embed_items(served: Served, histories: Histories, ids: Sequence[Id]) -> list[JsonObject]:
    """Return the vectors of items. Raises DataError for unknown ids."""
    check_known(served, histories, items=ids)
    return served.recommender.embed_items(ids).to_pylist()


def person(served: Served, histories: Histories, query: Query) -> Records:
    """Return the user of a query, as lists know the user: by an id, a record, or both.

    Raises:
        DataError: For an unknown user without a record.
    """
    ids = [] if query.user_id is None else [query.user_id]
    if query.user is None:
        check_known(served, histories, users=ids)
    return served.people([query], histories, [bool(served.knows("user", ids).any())])


def _people(served: Served, histories: Histories, ids: Iterable[Id]) -> Iterator[Records]:
    """Yield known users as the model reads them, each once: those of the training, and those with later records."""
    unique = list(dict.fromkeys(ids))
    groups: dict[bool, list[tuple[Id, bool]]] = {}
    for one, trained in zip(unique, served.knows("user", unique).tolist(), strict=True):
        groups.setdefault(trained and one not in served.users, []).append((one, trained))
    for group in groups.values():
        yield served.people([Query(user_id=one) for one, _ in group], histories, [trained for _, trained in group])


def find(served: Served, side: Side, words: str, k: int, offset: int) -> JsonObject:
    """Return the records of one side whose id, texts or categories contain all of some words, by id.

    Args:
        served: The version.
        side: Whose records.
        words: The words, separated by blanks; none find all.
        k: Records to return.
        offset: Records before them.
    """
    table = served.recommender.dataset.table(side)
    ids = served.recommender.dataset.ids(side)
    columns = [pa.chunked_array([ids.cast(pa.string())])]
    for name in table.column_names:
        column = table.column(name)
        if name.split(".")[0] in SEARCHED and pa.types.is_list(column.type):
            column = pc.binary_join(column, " ")
        if name.split(".")[0] in SEARCHED and pa.types.is_string(column.type):
            columns.append(column)
    later: Mapping[Id, JsonObject] = served.users if side == "user" else {}
    gone, added = pa.array(served.removed if side == "item" else (), ids.type), ids[:0]
    if served.users and side == "user":
        gone, texts = served.users.texts(ids.type)
        added = gone.filter(_matches([texts], words))
    trained = ids.filter(pc.and_(_matches(columns, words), pc.invert(pc.is_in(ids, gone))))
    found = pa.concat_arrays([trained, added])
    shown = found.take(pc.bottom_k_unstable(found, min(offset + k, len(found)))).slice(offset, k).to_pylist()
    of_training = iter(served.records(side, [one for one in shown if one not in later]))
    rows = [{f"{side}_id": one, **(later[one] if one in later else next(of_training))} for one in shown]
    return {f"{side}s": rows, "total": len(found)}


def _matches(columns: Sequence[pa.ChunkedArray], words: str) -> pa.Array:
    """Return (rows,) bool: each word is in one of the columns, whatever its case."""
    found = pa.array(np.ones(len(columns[0]), bool))
    for word in words.split():
        hits = [one_chunk(pc.match_substring(one, word, ignore_case=True)).fill_null(False) for one in columns]
        found = pc.and_(found, reduce(pc.or_, hits))
    return found
