"""A filter by whom an item is for."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from anyrec.model.fitted import ModelData
from anyrec.pipeline.conditions.conditions import Condition
from anyrec.pipeline.conditions.features import check_feature
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults


class Demographic(Rule):
    """Lists only items that are for the user: of an allowed group, or within an item's bounds on a number of the user."""

    type = "demographic"

    class Params(Rule.Params):
        user: str = Field(description="User feature: the group or groups a user belongs to, or a number (an age).")
        item: str | None = Field(None, description="Item feature: the groups that the item is for.")
        min: str | None = Field(None, description="Item feature: the least number of the user that the item is for.")
        max: str | None = Field(None, description="Item feature: the greatest.")
        missing: Literal["keep", "drop"] = Field(
            "keep", description="Items that do not say whom they are for; a bound alone is one."
        )
        missing_user: Literal["keep", "drop"] = Field(
            "drop",
            description="Users without the value: keep shows them all items, drop those alone that do not say whom they are for.",
        )

        @model_validator(mode="after")
        def _compares_something(self):
            if (self.item is None) == (self.min is None and self.max is None):
                raise ValueError("give either item (groups), or min, max or both (numbers)")
            return self

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        params = self.params
        named = [name for name in (self.params.item, self.params.min, self.params.max) if name]
        fits = [_fits(name, test) for name, test in zip(named, self._tests(), strict=True)]
        silent: dict[str, Any] = {name: {"is_null": True} for name in named}
        said = {"all": fits}
        if self.params.missing_user == "keep":
            said = {"any": [said, {self.params.user: {"is_null": True}}]}
        known = {"not": silent}
        self.condition = Condition({"any": [silent, said]} if self.params.missing == "keep" else {"all": [known, said]})

    def _tests(self) -> list[dict[str, Any]]:
        params, user = self.params, self.params.user
        found = [{"overlaps": user}] if params.item else []
        found += [{"le": user}] if params.min else []
        return found + ([{"ge": user}] if params.max else [])

    def check(self, model: ModelData) -> None:
        params = self.params
        numbers = params.item is None
        faults = check_feature(
            model,
            params.user,
            "/user",
            "user",
            ("number",) if numbers else ("text", "flag", "number"),
            not numbers,
        )
        faults += check_feature(model, params.item, "/item", "item", ("text", "flag", "number"))
        faults += check_feature(model, params.min, "/min", "item", ("number",), many=False)
        faults += check_feature(model, params.max, "/max", "item", ("number",), many=False)
        raise_faults(faults or self.condition.check(model, ""))

    def allowed(self, request: Request) -> np.ndarray:
        return self.condition.holds(request)


def _fits(name: str, test: dict[str, Any]) -> dict[str, Any]:
    """The test, passed where the item says nothing of this sort."""
    return {"any": [{name: test}, {name: {"is_null": True}}]}
