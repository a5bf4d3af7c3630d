"""Pages of a list that follow each other without repeats, also if longer lists begin otherwise.

A rule such as `calibrate` chooses for the length of a list, and a longer list has other candidates. A page that is not
among the items that do not depend on the length is then a list of its own, of what the pages before it left.
"""

from __future__ import annotations

from dataclasses import replace

from anyrec.serving.live.query import Query


def runs(query: Query, steady: int) -> list[Query]:
    """Return the queries that are answered one after another for a page, each without the items of those before it.

    The pages before it are taken to be of the same length, but for the first one.

    Args:
        query: The query.
        steady: How many first items of a list do not depend on its length (`Pipeline.steady`).

    Returns:
        The query alone, if its page is among these items; otherwise queries without `offset`, of which the last one is
        the page. What `exclude` names is left out of their candidates, so that rules choose among the others.
    """
    steady = max(0, steady - len(set(query.exclude)))
    if query.offset + query.k <= steady:
        return [query]
    first = query.offset - query.k * -(-max(0, query.offset - steady) // query.k)
    first = first if first > 0 else query.offset % query.k
    pages = (query.offset - first) // query.k + 1
    head = [replace(query, offset=0, k=first)] if first else []
    whole = [one if one.k <= steady else replace(one, exclude=()) for one in head]
    return [*whole, *[replace(query, offset=0, exclude=())] * pages]
