"""A filter by what the user did before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from anyrec.core.errors import AnyrecError, Fault, did_you_mean
from anyrec.core.values import show
from anyrec.data.list_columns import flat
from anyrec.model.fitted import ModelData
from anyrec.pipeline.conditions.constants import DAY, MOST_DAYS
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults

NO_EVENTS = "this model holds which items users had, but not of which type, when and how often."


class HistoryRule(Rule):
    """Bars items the user had before: all, those of some types of interaction, of late, or had often; or lists only these.

    With types, times or counts it reads the events that a user's history is made of, which leaves out what is labelled negative; an
    event without a type or a time is of no type and long ago.
    """

    type = "history"

    class Params(Rule.Params):
        types: list[str] | None = Field(
            None, min_length=1, description="Types of interaction that count; by default all."
        )
        within_days: float | None = Field(
            None, gt=0, le=MOST_DAYS, description="Only interactions not older than this count."
        )
        at_least: int = Field(
            1, ge=1, le=1_000_000_000, description="An item counts as had from so many such interactions on."
        )
        only: bool = Field(
            False,
            description="List only what the user had, not only what they had not. Those the request leaves out stay out (exclude_seen).",
        )

    def check(self, model: ModelData) -> None:
        dataset, faults = model.dataset, []
        if self._reads_events() and model.history is None and not len(dataset.interactions):
            faults.append(
                Fault("", NO_EVENTS, "Give the model its data again (with_data), or train with the rule.", "no data")
            )
        kinds = dataset.column("interaction_type")
        if self.params.types is not None and len(dataset.interactions):
            known = set() if kinds is None else set(kinds.unique().drop_null().to_pylist())
            for n, name in enumerate(self.params.types):
                if name not in known:
                    what = f"no interaction has the type {show(name)}."
                    faults.append(Fault(f"/types/{n}", what, did_you_mean(name, known), "unknown type"))
        raise_faults(faults)

    def allowed(self, request: Request) -> np.ndarray:
        """(users, items)"""
        users, items = self._had(request)
        had = np.zeros((len(request.rows), len(request.items)), bool)
        had[users, items] = True
        return had if self.params.only else ~had

    def _reads_events(self) -> bool:
        params = self.params
        return not (params.types is None and params.within_days is None and params.at_least == 1)

    def _had(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """(pairs,) rows of the request, and of the items that count as had."""
        params = self.params
        if not self._reads_events():
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
    history = request.model.with_histories().history
    if history is None:
        raise AnyrecError(NO_EVENTS)
    return history.take(pa.array(request.rows, mask=request.rows < 0))
