"""A filter by a condition."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from anyrec.model.fitted import ModelData
from anyrec.pipeline.conditions.conditions import Condition, Where, where_field
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults


class WhereRule(Rule):
    """Lists only items that meet a condition."""

    type = "where"

    class Params(Rule.Params):
        where: Where = where_field("What an item, the user and the moment must meet.")

    params: Params

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        self.condition = Condition(self.params.where)

    def check(self, model: ModelData) -> None:
        raise_faults(self.condition.check(model))

    def notes(self, model: ModelData) -> list[str]:
        return self.condition.unmatched(model)

    def allowed(self, request: Request) -> np.ndarray:
        return self.condition.holds(request)
