"""A rule that raises new items."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.constants import DAY, MOST_DAYS, SECOND
from anyrec.pipeline.conditions.features import Features, check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.reorder import rescored, values_at

MAX_CHANGE = 1e6
"""Maximum change of a score in standard deviations, so that it fits into float32 for any time in the data."""


class FreshnessRule(Rule):
    """Raises items by their age: freshness f = 2^(-age / half_life_days), which is 1 for items of the future.

    `multiply` multiplies an item's odds in the softmax of the standardised scores by f^weight; `add` adds weight * f
    standard deviations of the user's candidates' scores. Neither depends on the scale or sign of a model's scores.

    Example:
        FreshnessRule(feature="item.temporal.added", half_life_days=30)
    """

    type = "freshness"

    class Params(Rule.Params):
        feature: str = Field(description="Item feature with the item's time; of several times the last.")
        half_life_days: float = Field(
            ge=1e-6, le=MOST_DAYS, description="Age in days at which an item is half as fresh as a new one."
        )
        method: Literal["multiply", "add"] = Field("multiply", description="How freshness changes the score.")
        weight: float = Field(1.0, gt=0, le=1000, description="Weight of the freshness against the score.")
        unit: Literal["auto", "year", "unix"] = Field(
            "auto",
            description="Unit of a number: year (1994.5), or unix (seconds since 1970); auto for features with times.",
        )
        missing: Literal["keep", "drop"] = Field(
            "keep",
            description="Items without a time: change their score by the mean of the user's other candidates, or do "
            "not list them.",
        )

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.features = Features()

    def check(self, model: ModelData) -> None:
        kinds = ("time",) if self.params.unit == "auto" else ("number",)
        faults = check_feature(model, self.params.feature, "/feature", "item", kinds, many=False)
        raise_faults(faults)

    def allowed(self, request: Request) -> np.ndarray | None:
        return self.features.allowed(request, self.params.feature, self.params.missing)

    def k_decides(self) -> Literal["nothing", "end", "start"]:
        return "nothing"

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        params = self.params
        values = values_at(self.features.of(request, params.feature), lists)
        age = np.maximum(_ages(values, request.now, params.unit), 0) / params.half_life_days
        change = params.weight * (-age * np.log(2) if params.method == "multiply" else np.exp2(-age))
        change = np.clip(change, -MAX_CHANGE, MAX_CHANGE)
        known = ~np.isnan(change)
        mean = np.where(known, change, 0).sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
        return rescored(lists, np.where(known, change, mean))


def _ages(values: np.ndarray, now: int, unit: str) -> np.ndarray:
    """Return ages in days; NaN for a missing time.

    Args:
        values: Times: microseconds since 1970, or in `unit`.
        now: Time of the request in microseconds since 1970.
        unit: As the option.
    """
    if unit == "year":
        moment = datetime.fromtimestamp(now / SECOND, timezone.utc)
        year = moment.year + (moment.timetuple().tm_yday - 1) / 365.25
        return (year - values) * 365.25
    return (now - values * (SECOND if unit == "unix" else 1)) / DAY
