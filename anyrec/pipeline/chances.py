"""The probability that a pipeline's lists show given items at given positions, for off-policy evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from anyrec.core.errors import Fault, InputError
from anyrec.core.types import JsonObject
from anyrec.model.fitted import FittedModel
from anyrec.model.request_reader import Users
from anyrec.pipeline.answer import Clock
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.pipeline import Pipeline, reorders


def draws_last(pipeline: Pipeline) -> bool:
    """Return whether the last reordering rule, and no other one, draws items at random.

    Then the logged probabilities are those of the items at their positions in the list: no later rule moves them.
    """
    drawing = [rule.draws for rule in pipeline.rules if reorders(rule)]
    return sum(drawing) == 1 and drawing[-1]


def check_draws(pipeline: Pipeline) -> None:
    """Raise InputError if a pipeline draws items with unknown probabilities."""
    if any(rule.draws for rule in pipeline.rules) and not draws_last(pipeline):
        what = "a rule after the one that draws items can move them, so their probabilities are unknown."
        raise InputError(Fault("pipeline.rerank.rules", what, "Put the one rule that draws last.", "order"))


def chances(
    pipeline: Pipeline,
    model: FittedModel,
    users: Users,
    k: int,
    positions: Sequence[int],
    items: np.ndarray,
    *,
    exclude_seen: bool = True,
    candidates: np.ndarray | None = None,
    context: JsonObject | None = None,
    now: int | None = None,
) -> np.ndarray:
    """Return the probabilities that lists show given items at given positions.

    They are 0 or 1 for a pipeline that draws nothing, and exact for one whose last reordering rule draws.

    Args:
        pipeline: The pipeline.
        model: Its model.
        users: As for `Pipeline.answer`, like the options after `items`.
        k: Items of each list, at least the last position.
        positions: Positions in the lists, from 1, ascending.
        items: (users, positions) item rows, -1 for an item that the model does not have.

    Returns:
        (users, positions) probability that the list has the item at this position, and those of all earlier
        `positions` at theirs.

    Raises:
        InputError: If a rule that draws is not the last one, or its draws have too many outcomes to add up.
        AnyrecError: As for `Pipeline.answer`.
    """
    check_draws(pipeline)
    asking = None
    if draws_last(pipeline):
        asking = _Asking(next(rule for rule in pipeline.rules if rule.draws), positions, items)
        pipeline = pipeline.with_rules([asking if rule.draws else rule for rule in pipeline.rules])
    listed: list[np.ndarray] = []
    options = {"exclude_seen": exclude_seen, "candidates": candidates, "context": context, "now": now}
    for _, lists in pipeline.blocks(model, users, k, Clock(), **options):
        width = max(positions)
        padded = np.pad(lists.items, ((0, 0), (0, max(0, width - lists.items.shape[1]))), constant_values=-1)
        listed.append(padded[:, np.array(positions) - 1])
    if asking is not None:
        return np.concatenate(asking.found)
    same = (np.concatenate(listed) == items) & (items >= 0)
    return np.cumprod(same, axis=1).astype(np.float64)


class _Asking(Rule):
    """A rule that draws nothing, and collects the chances of a rule that would.

    Args:
        rule: The rule that draws.
        positions: As for `chances`.
        items: As for `chances`.

    Attributes:
        found: What `rule.chances` returned for each block of users.
    """

    def __init__(self, rule: Rule, positions: Sequence[int], items: np.ndarray):
        super().__init__(rule.params)
        self.type, self._rule, self._positions, self._items = rule.type, rule, positions, items
        self.found: list[np.ndarray] = []

    @property
    def on_error(self) -> Literal["refuse"]:
        """A rule that fails has no chances."""
        return "refuse"

    def allowed(self, request: Request) -> np.ndarray | None:
        return self._rule.allowed(request)

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        start = sum(map(len, self.found))
        own = self._items[start : start + len(lists.items)]
        self.found.append(self._rule.chances(request, lists, self._positions, own))
        return lists
