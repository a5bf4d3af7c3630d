"""What a version computes before it serves."""

from __future__ import annotations

from anyrec.core.errors import AnyrecError
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.query import Query
from anyrec.serving.live.served import Served


def warm_up(served: Served) -> None:
    """Compute what the first request would otherwise wait for: a known user's list and an unknown person's."""
    ids = served.recommender.dataset.ids("user")
    queries = [Query(user_id=ids[0].as_py())] if len(ids) else []
    for found in served.lists([*queries, Query()], Histories(1)):
        if isinstance(found, AnyrecError):
            raise found
