"""Puts given items at given places."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field, field_validator

from anyrec.model.fitted import ModelData
from anyrec.pipeline.candidate_lists import listable_items
from anyrec.pipeline.conditions.conditions import Condition, Where, where_field
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import check_ids, raise_faults, rows_of_ids


class Pinned(BaseModel):
    """An item and its place."""

    model_config = {"extra": "forbid"}

    item: str | int = Field(description="Its id.")
    position: int = Field(
        ge=1, le=10_000, description="Its place, from 1; past the end of a shorter list it comes last."
    )
    where: Where | None = where_field("For whom and when; by default for all, always.", None)


class Pin(Rule):
    """Puts given items at given places, for users who may be shown them: all filters pass them, and the request does not leave them out.

    An item that was no candidate takes the score of the one whose place it takes. Of two for one place the later one goes first.
    """

    type = "pin"

    class Params(Rule.Params):
        items: list[Pinned] = Field(min_length=1, max_length=100, description="Which items, where.")

        @field_validator("items")
        @classmethod
        def _each_once(cls, items: list[Pinned]) -> list[Pinned]:
            if len({str(one.item) for one in items if one.where is None}) < sum(one.where is None for one in items):
                raise ValueError("an item is pinned twice")
            return items

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        self.pins = sorted(self.params.items, key=lambda one: one.position)
        self.conditions = [Condition(one.where) if one.where else None for one in self.pins]

    def check(self, model: ModelData) -> None:
        faults = check_ids(model, [one.item for one in self.params.items], "/items/{}/item")
        for n, one in enumerate(self.params.items):
            faults += Condition(one.where).check(model, f"/items/{n}/where") if one.where else []
        raise_faults(faults)

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        rows = rows_of_ids([one.item for one in self.pins], request.model.dataset.ids("item"))
        shown = listable_items(request, request.allowed)
        for row, one, condition in zip(rows, self.pins, self.conditions, strict=True):
            if row >= 0:
                wanted = (
                    np.ones(len(lists.items), bool)
                    if shown is None
                    else np.broadcast_to(shown[..., row], len(lists.items))
                )
                if condition is not None:
                    wanted = wanted & condition.holds(request, np.array([row]))[..., 0]
                lists = put_at(lists, int(row), one.position - 1, wanted)
        return lists


def put_at(lists: Lists, item: int, place: int, wanted: np.ndarray) -> Lists:
    """The item at a place, from 0, of the lists of the users `wanted: (users,)` bool; lists grow by one."""
    users, length = lists.items.shape
    there = lists.items == item
    old = np.where(there & wanted[:, None], -1, lists.items)
    gone = (old < 0).astype(np.int8)
    order = np.argsort(gone, axis=1, kind="stable")
    items, scores = np.take_along_axis(old, order, 1), np.take_along_axis(lists.scores, order, 1)
    place_of = np.minimum(place, (items >= 0).sum(1))  # (users,)
    columns = np.arange(length + 1)
    source = np.where(columns < place_of[:, None], columns, columns - 1)
    source = np.where(wanted[:, None], source, columns)
    grown = np.concatenate([items, np.full((users, 1), -1)], 1)
    numbers = np.concatenate([np.where(items >= 0, scores, -np.inf), np.full((users, 1), -np.inf)], 1).astype(
        np.float32
    )
    made, given = (
        np.take_along_axis(grown, np.maximum(source, 0), 1),
        np.take_along_axis(numbers, np.maximum(source, 0), 1),
    )
    rows = np.flatnonzero(wanted)
    at = place_of[rows]
    own = np.where(there, lists.scores, -np.inf).max(1, initial=-np.inf)[rows]
    near = np.where(np.isfinite(numbers[rows, at]), numbers[rows, at], numbers[rows, np.maximum(at - 1, 0)])
    made[rows, at] = item
    given[rows, at] = np.where(np.isfinite(own), own, np.where(np.isfinite(near), near, 0))
    return Lists(made, given)
