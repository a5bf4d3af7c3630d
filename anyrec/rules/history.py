"""A filter by what the user did before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from anyrec.contracts import Params
from anyrec.data.histories import history_column
from anyrec.data.lists import flat
from anyrec.errors import AnyrecError
from anyrec.pipeline.constants import DAY
from anyrec.pipeline.stages import Request, Rule


class History(Rule):
    """Bars items the user had before: all, those of some types of interaction, of late, or had often; or lists only these.

    With types, times or counts it reads the events that a user's history is made of, which leaves out what is labelled negative; an
    event without a type or a time is of no type and long ago.
    """

    type = "history"

    class Params(Params):
        types: list[str] | None = Field(
            None, min_length=1, description="Types of interaction that count; by default all."
        )
        within_days: float | None = Field(None, gt=0, description="Only interactions not older than this count.")
        at_least: int = Field(1, ge=1, description="An item counts as had from so many such interactions on.")
        only: bool = Field(
            False,
            description="List only what the user had, not only what they had not. Those the request leaves out stay out (exclude_seen).",
        )

    def allowed(self, request: Request) -> np.ndarray:
        """(users, items)"""
        users, items = self._had(request)
        had = np.zeros((len(request.rows), len(request.items)), bool)
        had[users, items] = True
        return had if self.params.only else ~had

    def _had(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """(pairs,) rows of the request, and of the items that count as had."""
        params = self.params
        if params.types is None and params.within_days is None and params.at_least == 1:
            return request.seen
        events, users = flat(_events(request))
        items, times, kinds = (pc.struct_field(events, name) for name in ("item", "time", "kind"))
        counts = np.ones(len(users), bool)
        if params.types is not None:
            counts &= pc.is_in(kinds, value_set=pa.array(params.types)).to_numpy(zero_copy_only=False)
        if params.within_days is not None:
            late = pc.greater_equal(times, request.now - round(params.within_days * DAY))
            counts &= pc.fill_null(late, False).to_numpy(zero_copy_only=False)
        width = len(request.items)
        keys = users[counts] * width + items.to_numpy(zero_copy_only=False)[counts]
        keys, times_had = np.unique(keys, return_counts=True)
        keys = keys[times_had >= params.at_least]
        return keys // width, keys % width


def _events(request: Request) -> pa.Array:
    """(users,) lists of events: of the request, else of the interactions that the model holds. Raises AnyrecError where it holds none."""
    if request.history is not None:
        return request.history
    recommender, dataset = request.recommender, request.recommender.dataset
    if not len(dataset.interactions):
        raise AnyrecError("this model holds what users had, but not of which type, when and how often.")
    from anyrec.data.labels import label_interactions

    labels = label_interactions(dataset, recommender.config.data)
    events = recommender._events(np.arange(len(dataset.interactions)), labels)
    return history_column(dataset, events).take(pa.array(request.rows, mask=request.rows < 0))
