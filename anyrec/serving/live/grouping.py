"""Which queries are scored together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

from anyrec.serving.live.pages import runs
from anyrec.serving.live.query import Id, Query


def grouped(
    queries: Sequence[Query], known: Sequence[bool], added: Container[Id], draws: bool, steady: int
) -> tuple[list[list[int]], list[int]]:
    """Group queries that have enough in common to be scored together.

    These are queries of users with known ids, and queries of persons whose records are in the query, or who are
    unknown. Equal queries get one answer.

    Args:
        queries: The queries.
        known: (queries,) whether the model was trained on the user.
        added: Ids of users with records that came since.
        draws: Whether the pipeline draws items at random. What a query excludes is then no item that can be drawn.
        steady: How many first items of a list do not depend on its length (`Pipeline.steady`).

    Returns:
        The places of the queries of each group, and (queries,) the place of the first of equal queries.
    """
    together: dict[object, list[int]] = {}
    equal: dict[str, int] = {}
    first: list[int] = []
    occurrences: Counter[Id | None] = Counter()
    for n, query in enumerate(queries):
        alone = (draws and query.exclude) or runs(query, steady) != [query]
        shares = None if alone else query.shares
        first.append(n if shares is None else equal.setdefault(repr(query), n))
        if first[n] != n:
            continue
        key: tuple[object, ...] = (n,)
        if shares is not None:
            has_record = query.user is not None or (query.user_id is not None and query.user_id in added)
            by_id = known[n] and not has_record
            key = (*shares, by_id, occurrences[query.user_id])  # an id may be there once
        occurrences[query.user_id] += query.user_id is not None
        together.setdefault(key, []).append(n)
    return list(together.values()), first
