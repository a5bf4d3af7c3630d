"""A rule that puts given items at given positions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, field_validator

from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.candidate_lists import listable_items
from anyrec.pipeline.conditions.conditions import Condition, Where, where_field
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import check_ids, raise_faults, rows_of_ids


class Pinned(BaseModel):
    """An item and its position."""

    model_config = {"extra": "forbid"}

    item: str | int = Field(description="Id of the item.")
    position: int = Field(ge=1, le=10_000, description="Position from 1; at the end of a list that is shorter.")
    where: Where | None = where_field("Users and moments; by default all.", None)


class Pin(Rule):
    """Puts given items at given positions, for users who may be shown them by all filters and the request's exclusions.

    An item that was not a candidate takes the score of the item at its position. Of two items for one position the
    one that is named later comes first.
    """

    type = "pin"

    class Params(Rule.Params):
        items: list[Pinned] = Field(min_length=1, max_length=100, description="Items and their positions.")

        @field_validator("items")
        @classmethod
        def _each_once(cls, items: list[Pinned]) -> list[Pinned]:
            if len({str(one.item) for one in items if one.where is None}) < sum(one.where is None for one in items):
                raise ValueError("an item is pinned twice")
            return items

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.pins = sorted(self.params.items, key=lambda one: one.position)
        self.conditions = [Condition(one.where) if one.where else None for one in self.pins]

    def check(self, model: ModelData) -> None:
        faults = check_ids(model, [one.item for one in self.params.items], "/items/{}/item")
        for n, one in enumerate(self.params.items):
            faults += Condition(one.where).check(model, f"/items/{n}/where") if one.where else []
        raise_faults(faults)

    def notes(self, model: ModelData) -> list[str]:
        return [note for one in self.conditions if one is not None for note in one.unmatched(model)]

    def k_decides(self) -> Literal["nothing", "end", "start"]:
        return "nothing"

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        rows = rows_of_ids([one.item for one in self.pins], request.model.dataset.ids("item"))
        listable = listable_items(request, request.allowed)
        for row, one, condition in zip(rows.tolist(), self.pins, self.conditions, strict=True):
            if row >= 0:
                wanted = np.ones(len(lists.items), bool)
                if listable is not None:
                    wanted = wanted & listable[..., row]
                if condition is not None:
                    wanted = wanted & condition.holds(request, np.array([row]))[..., 0]
                lists = put_at(lists, row, one.position - 1, wanted)
        return lists


def put_at(lists: Lists, item: int, place: int, wanted: np.ndarray) -> Lists:
    """Put an item at a place of some lists, which grow by one entry.

    Args:
        lists: (users, length).
        item: Row of the item.
        place: The place from 0; a shorter list gets the item at its end.
        wanted: (users,) bool, the users whose list changes.

    Returns:
        (users, length + 1).
    """
    users, length = lists.items.shape
    found = lists.items == item
    # Remove the item from its old place: it becomes -1, and a stable sort moves the gap to the end.
    old = np.where(found & wanted[:, None], -1, lists.items)
    order = np.argsort((old < 0).astype(np.int8), axis=1, kind="stable")
    items, scores = np.take_along_axis(old, order, 1), np.take_along_axis(lists.scores, order, 1)
    places = np.minimum(place, (items >= 0).sum(1))  # (users,)
    # Column c of the result is column c of the old list before the place, and c - 1 after it.
    columns = np.arange(length + 1)
    source = np.where(columns < places[:, None], columns, columns - 1)
    source = np.maximum(np.where(wanted[:, None], source, columns), 0)
    wide_items = np.concatenate([items, np.full((users, 1), -1)], 1)
    wide_scores = np.concatenate([np.where(items >= 0, scores, -np.inf), np.full((users, 1), -np.inf)], 1)
    wide_scores = wide_scores.astype(np.float32)
    new_items, new_scores = np.take_along_axis(wide_items, source, 1), np.take_along_axis(wide_scores, source, 1)
    rows = np.flatnonzero(wanted)
    at = places[rows]
    # The item keeps its own score; one that was not a candidate takes the score at its place, else the one before it.
    own = np.where(found, lists.scores, -np.inf).max(1, initial=-np.inf)[rows]
    near = np.where(np.isfinite(wide_scores[rows, at]), wide_scores[rows, at], wide_scores[rows, np.maximum(at - 1, 0)])
    new_items[rows, at] = item
    new_scores[rows, at] = np.where(np.isfinite(own), own, np.where(np.isfinite(near), near, 0))
    return Lists(new_items, new_scores)
