"""A filter by the users that an item is for."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from anyrec.core.types import Json, JsonObject
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.conditions import Condition
from anyrec.pipeline.conditions.features import check_feature
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults


class DemographicRule(Rule):
    """Lists only items that are for the user: by the user's groups, or by an item's bounds on a number of the user.

    Example:
        DemographicRule(user="user.continuous.age", min="item.continuous.min_age")
    """

    type = "demographic"

    class Params(Rule.Params):
        user: str = Field(description="User feature: the groups of a user, or a number (an age).")
        item: str | None = Field(None, description="Item feature: the groups that the item is for.")
        min: str | None = Field(None, description="Item feature: the lowest number of a user that the item is for.")
        max: str | None = Field(None, description="Item feature: the highest number of a user that the item is for.")
        missing: Literal["keep", "drop"] = Field(
            "keep", description="Items without groups and bounds: list them for all users, or not at all."
        )
        missing_user: Literal["keep", "drop"] = Field(
            "drop",
            description="Users without a value of `user`: keep lists all items for them, drop only items without "
            "groups and bounds.",
        )

        @model_validator(mode="after")
        def _compares_something(self) -> Self:
            if (self.item is None) == (self.min is None and self.max is None):
                raise ValueError("give either item (groups), or min, max or both (numbers)")
            return self

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        named = [name for name in (self.params.item, self.params.min, self.params.max) if name]
        fits = [_fits(name, test) for name, test in zip(named, self._tests(), strict=True)]
        unbounded: JsonObject = {name: {"is_null": True} for name in named}
        meets: JsonObject = {"all": fits}
        if self.params.missing_user == "keep":
            meets = {"any": [meets, {self.params.user: {"is_null": True}}]}
        keeps = self.params.missing == "keep"
        self.condition = Condition({"any": [unbounded, meets]} if keeps else {"all": [{"not": unbounded}, meets]})

    def _tests(self) -> list[JsonObject]:
        """Return the test of each item feature that is set: item, min, max."""
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


def _fits(name: str, test: JsonObject) -> JsonObject:
    """Return a condition that an item without a value of the feature meets, too."""
    return {"any": [{name: test}, {name: {"is_null": True}}]}
