"""What a version computes before it serves."""

from __future__ import annotations

import logging

from anyrec.core.contracts import Encoder
from anyrec.core.errors import AnyrecError
from anyrec.model.blended import has_towers, towers_of
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


def load_encoders(served: Served) -> None:
    """Load what encoders read records with, such as a language model. One that cannot be loaded is a logged warning.

    Requests with records that need it then get the error, and all others are answered.
    """
    model = served.recommender.model
    if not has_towers(model):
        return
    scorer = towers_of(model).scorer
    for encoder in (*scorer.user.encoders, *scorer.item.encoders):
        if isinstance(encoder, Encoder):
            try:
                encoder.load()
            except AnyrecError as error:
                logging.getLogger("anyrec.serving").warning("requests with records of their own: %s", error)
