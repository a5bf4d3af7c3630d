"""A rule that bounds the number of items of a category among the first k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.features import Features, check_feature, split_name, values_of
from anyrec.pipeline.conditions.syntax import escape
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.quotas import choose_within
from anyrec.pipeline.reranking.reorder import codes_at, marked_first

OTHERS = "*"
Amount = Annotated[float, Field(ge=0, le=10_000)]


class Quota(Rule):
    """Keeps the number of items of each category among the first k within bounds, with few changes of the order.

    An amount of 1 or more is a count; one below 1 is a fraction of k, rounded up for `at_least` and down for
    `at_most`. An item of several categories counts for each. With too few candidates the list is filled past
    `at_most`, with a warning.
    """

    type = "quota"

    class Params(Rule.Params):
        feature: str = Field(description="Item feature with the category or categories.")
        at_least: dict[str, Amount] = Field(default_factory=dict, description="Minimum amount by category.")
        at_most: dict[str, Amount] = Field(
            default_factory=dict,
            description="Maximum amount by category; '*' stands for each category that is not named.",
        )
        missing: Literal["keep", "drop"] = Field(
            "keep", description="Items without a category: list them without bounds, or not at all."
        )

        @model_validator(mode="after")
        def _bounds_agree(self) -> Self:
            if not self.at_least and not self.at_most:
                raise ValueError("give at_least, at_most or both")
            if OTHERS in self.at_least:
                raise ValueError("'*' is for at_most only")
            crossed = [
                name
                for name, amount in self.at_least.items()
                if name in self.at_most and (amount < 1) == (self.at_most[name] < 1) and amount > self.at_most[name]
            ]
            if crossed:
                raise ValueError(f"at_least is above at_most for {', '.join(crossed)}")
            return self

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.features = Features()

    def check(self, model: ModelData) -> None:
        params = self.params
        faults = check_feature(model, params.feature, "/feature", "item", ("text",))
        if not faults:
            names = _categories(model, params.feature)
            for option in ("at_least", "at_most"):
                unknown = [name for name in getattr(params, option) if name not in names and name != OTHERS]
                faults += [
                    Fault(
                        f"/{option}/{escape(name)}",
                        f"no item has the category '{name}'.",
                        did_you_mean(name, names),
                        "unknown category",
                    )
                    for name in unknown
                ]
        raise_faults(faults)

    def allowed(self, request: Request) -> np.ndarray | None:
        return self.features.allowed(request, self.params.feature, self.params.missing)

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        values = self.features.of(request, self.params.feature)
        names = [] if values.names is None else values.names.to_pylist()
        codes, filled = codes_at(values, lists), lists.items >= 0
        length = lists.items.shape[1]
        at_least, at_most = self.params.at_least, self.params.at_most
        least = np.array([_amount(at_least.get(name, 0), k, np.ceil) for name in names] + [0], np.int64)
        others = _amount(at_most[OTHERS], k, np.floor) if OTHERS in at_most else length + 1
        most = np.array(
            [_amount(at_most[name], k, np.floor) if name in at_most else others for name in names] + [length + 1],
            np.int64,
        )
        found = choose_within(codes, filled, least, most, k)
        self._warn(request, "at_most", found.over, "too few other candidates")
        no_items = any(amount > 0 and name not in names for name, amount in at_least.items())
        self._warn(request, "at_least", found.under | no_items, "too few such candidates, or too few places")
        return marked_first(lists, found.marked)

    def _warn(self, request: Request, option: str, users: np.ndarray, why: str) -> None:
        if users.any():
            which = f"{users.sum()} of {len(users)} users"
            request.warnings.append(f"quota on '{self.params.feature}': {option} could not be kept for {which}: {why}.")


def _amount(amount: float, k: int, round_to: Callable[[float], float]) -> int:
    """Return a count, or a fraction of k as a count."""
    return int(amount) if amount >= 1 else int(round_to(round(amount * k, 9)))


def _categories(model: ModelData, feature: str) -> set[str]:
    """Return all categories of a feature."""
    values = values_of(model.dataset.items, split_name(feature)[1], len(model.dataset.items))
    return set() if values.names is None else set(values.names.to_pylist())
