"""Config of `anyrec tune`: the search space, the method, and the limits."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from anyrec.core.config.keys import Section
from anyrec.core.config.training import METRIC
from anyrec.core.types import Json

DURATION = r"^([0-9]+(\.[0-9]+)?)(s|m|h|d)?$"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
Number = Annotated[int, Field(ge=-(10**15), le=10**15)] | Annotated[float, Field(ge=-1e15, le=1e15)]
"""An end of a range; an integer stays one."""
COSTS = ("seconds", "parameters")
"""Objectives that are minimised: the seconds of the training, and the number of the model's parameters."""


def _known_objective(name: str) -> str:
    if name not in COSTS and not re.fullmatch(METRIC, name):
        raise ValueError(f"no such objective; use {' or '.join(COSTS)}, or a metric, for example ndcg@10")
    return name


class SearchRange(Section):
    """The values of one searched key: a range, or a list of choices."""

    low: Number | None = Field(default=None, description="Smallest value.")
    high: Number | None = Field(default=None, description="Largest value.")
    log: bool = Field(default=False, description="Search on a logarithmic scale: factors count, not differences.")
    step: Annotated[float, Field(gt=0, le=1e15)] | None = Field(
        default=None, description="Distance between neighbouring values; not with `log`."
    )
    choices: list[Json] | None = Field(
        default=None, min_length=1, max_length=1000, description="The values, instead of a range."
    )
    when: dict[str, Annotated[list[Json], Field(max_length=1000)]] = Field(
        default_factory=dict,
        description="Searched only if other searched keys have one of these values, by key. For the options of a "
        "component whose `type` is searched as well, this is found by itself.",
    )

    @model_validator(mode="before")
    @classmethod
    def _list_of_choices(cls, value: Json) -> Json:
        return {"choices": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _is_range_or_choices(self) -> SearchRange:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("choices cannot go with low, high, log and step")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if not self.low < self.high:
            raise ValueError("low must be less than high")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic scale has no step")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic scale must begin above 0")
        return self


class TuneConfig(Section):
    """The study of `anyrec tune`."""

    trials: int = Field(default=50, ge=1, le=100_000, description="Trials of the study, those before included.")
    timeout: Annotated[str, Field(pattern=DURATION)] | None = Field(
        default=None,
        description="Time limit of the search: `90s`, `30m`, `1h`, `2d`, or seconds. A running trial ends with its "
        "epoch. Earlier sessions of a resumed study count.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Trials that run at the same time, in processes of their own. With `cluster.type: ray` the number "
        "is `cluster.workers`.",
    )
    objectives: list[Annotated[str, AfterValidator(_known_objective)]] = Field(
        default_factory=list,
        max_length=5,
        description="Validation metrics (maximised), `seconds` and `parameters` (minimised); by default "
        "`training.metric`. Several give a Pareto front, and the best trial is that of the first one.",
    )
    search: dict[str, SearchRange] = Field(
        default_factory=dict,
        description="Values of each searched key, by key: a range {low, high, log, step}, or a list. By default the "
        "keys that the schema marks with `tune` and that have an effect in this config.",
    )
    sampler: Literal["tpe", "random"] = Field(
        default="tpe", description="tpe: a tree-structured Parzen estimator. random: values at random."
    )
    startup_trials: int = Field(
        default=10, ge=1, le=100_000, description="Random trials before the sampler learns from them."
    )
    pruner: Literal["auto", "median", "hyperband", "none"] = Field(
        default="auto",
        description="Ends trials early by their validation metric. median: if it is below the median of earlier trials "
        "at that epoch. hyperband: by brackets of successive halving. auto: median for one metric, none for "
        "several objectives.",
    )
    warmup_epochs: int = Field(
        default=1, ge=0, le=100_000, description="First epochs of each trial that `median` ends none after."
    )
    final: bool = Field(
        default=True, description="Train and save the model of the best trial, as `anyrec train` does, and report it."
    )


def seconds_of(duration: str) -> float:
    """Return a duration such as `1h` in seconds.

    Raises:
        ValueError: If it is none.
    """
    found = re.fullmatch(DURATION, duration)
    if found is None:
        raise ValueError(f"'{duration}' is no duration; write 90s, 30m, 1h or 2d")
    return float(found[1]) * UNITS[found[3] or "s"]
