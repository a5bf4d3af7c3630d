"""A rule that raises or lowers items that meet a condition."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.conditions import Condition, Where, where_field
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.reorder import distinct_items, rescored


class Boost(Rule):
    """Raises or lowers items that meet a condition, by a factor or by standard deviations of the user's scores.

    A factor multiplies an item's odds in the softmax of the standardised scores. Its effect depends neither on the
    scale nor on the sign of a model's scores.
    """

    type = "boost"

    class Params(Rule.Params):
        where: Where = where_field("Items, users and moments that are boosted.")
        factor: float | None = Field(None, ge=1e-6, le=1e6, description="2 doubles the item's odds, 0.5 halves them.")
        add: float | None = Field(
            None, ge=-1e6, le=1e6, description="Number of standard deviations of the user's candidates' scores to add."
        )

        @model_validator(mode="after")
        def _one_of_both(self) -> Self:
            if (self.factor is None) == (self.add is None):
                raise ValueError("give either factor or add")
            return self

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.condition = Condition(self.params.where)

    def check(self, model: ModelData) -> None:
        raise_faults(self.condition.check(model))

    def notes(self, model: ModelData) -> list[str]:
        return self.condition.unmatched(model)

    def k_decides(self) -> Literal["nothing", "end", "start"]:
        return "nothing"

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        items, places = distinct_items(lists)
        if not len(items):
            return lists
        holds = self.condition.holds(request, items)
        meets = holds[places] if holds.ndim == 1 else np.take_along_axis(holds, places, 1)
        meets &= lists.items >= 0
        params = self.params
        change = np.log(params.factor) if params.factor is not None else params.add
        return rescored(lists, meets * change) if meets.any() else lists
