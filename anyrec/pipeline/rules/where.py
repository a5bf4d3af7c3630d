"""A filter by a condition."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.conditions import Condition, Where, where_field
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults


class WhereRule(Rule):
    """Lists only items that meet a condition.

    Example:
        WhereRule(where={"item.continuous.price": {"lt": 20}})
    """

    type = "where"

    class Params(Rule.Params):
        where: Where = where_field("What an item, the user and the moment must meet.")

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.condition = Condition(self.params.where)

    def check(self, model: ModelData) -> None:
        raise_faults(self.condition.check(model))

    def notes(self, model: ModelData) -> list[str]:
        return self.condition.unmatched(model)

    def allowed(self, request: Request) -> np.ndarray:
        return self.condition.holds(request)
