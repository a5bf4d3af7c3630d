"""A filter by the user's earlier interactions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from anyrec.core.errors import AnyrecError, Fault, did_you_mean
from anyrec.core.values import show
from anyrec.data.list_columns import flat
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.constants import DAY, MOST_DAYS
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults

NO_EVENTS = "this model knows which items users had, but not the types, times and numbers of their interactions."
HINT = "Call with_data(dataset), or train the model with this rule (for apply_rules: give interactions)."


class HistoryRule(Rule):
    """Excludes items that the user has interacted with, or lists only these.

    The interactions can be restricted to some types, to the last days, and to a minimum number. They are then read
    from the user's history, which leaves out interactions that are labelled negative; an event without a type or a
    time matches no restriction of it.

    Example:
        HistoryRule(types=["purchase"], within_days=90)
    """

    type = "history"

    class Params(Rule.Params):
        types: list[str] | None = Field(
            None, min_length=1, description="Types of interactions that count; by default all."
        )
        within_days: float | None = Field(
            None, gt=0, le=MOST_DAYS, description="Maximum age in days of interactions that count; by default any."
        )
        at_least: int = Field(
            1, ge=1, le=1_000_000_000, description="Minimum number of such interactions with an item."
        )
        only: bool = Field(
            False,
            description="List only these items instead of excluding them. Items that the request excludes "
            "(exclude_seen) stay excluded.",
        )

    params: Params

    def check(self, model: ModelData) -> None:
        dataset, faults = model.dataset, []
        if self._reads_events() and model.history is None and not len(dataset.interactions):
            faults.append(Fault("", NO_EVENTS, HINT, "no data"))
        kinds = dataset.column("interaction_type")
        if self.params.types is not None and len(dataset.interactions):
            known = set() if kinds is None else set(kinds.unique().drop_null().to_pylist())
            for n, name in enumerate(self.params.types):
                if name not in known:
                    what = f"no interaction has the type {show(name)}."
                    faults.append(Fault(f"/types/{n}", what, did_you_mean(name, known), "unknown type"))
        raise_faults(faults)

    def allowed(self, request: Request) -> np.ndarray:
        """Return (users, items) bool."""
        users, items = self._history_pairs(request)
        in_history = np.zeros((len(request.rows), len(request.items)), bool)
        in_history[users, items] = True
        return in_history if self.params.only else ~in_history

    def _reads_events(self) -> bool:
        """Return whether an option restricts the interactions, which needs their types, times or numbers."""
        params = self.params
        return not (params.types is None and params.within_days is None and params.at_least == 1)

    def _history_pairs(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """Return (pairs,) request rows, and (pairs,) the item rows of the interactions that count."""
        params = self.params
        if not self._reads_events():
            return request.seen
        events, users = flat(_events(request))
        items, times, kinds = (pc.struct_field(events, name) for name in ("item", "time", "kind"))
        matches = np.ones(len(users), bool)
        if params.types is not None:
            matches &= pc.is_in(kinds, value_set=pa.array(params.types)).to_numpy(zero_copy_only=False)
        if params.within_days is not None:
            recent = pc.greater_equal(times, request.now - round(params.within_days * DAY))
            matches &= pc.fill_null(recent, False).to_numpy(zero_copy_only=False)
        width = len(request.items)
        keys = users[matches] * width + items.to_numpy(zero_copy_only=False)[matches]
        keys, counts = np.unique(keys, return_counts=True)
        keys = keys[counts >= params.at_least]
        return keys // width, keys % width


def _events(request: Request) -> pa.Array:
    """Return (users,) lists of events: from the request, else from the model's data.

    Raises:
        AnyrecError: The model has neither histories nor its data.
    """
    if request.history is not None:
        return request.history
    history = request.model.with_histories().history
    if history is None:
        raise AnyrecError(NO_EVENTS)
    return history.take(pa.array(request.rows, mask=request.rows < 0))
