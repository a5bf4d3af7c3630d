"""The base class of every component's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from anyrec.core.param_keys import ONLY_WITH, TUNE
from anyrec.core.types import Json


class Params(BaseModel):
    """Base class of a component's options.

    Unknown keys are refused. Values must have exactly the declared type (`"3"` is not an integer), and numbers must be
    finite. Give every number both bounds, so that no value can exhaust the memory.

    Attributes:
        renamed: The current name of each option that was renamed. The former name still works.

    Example:
        class Params(Params):
            renamed = {"channels": "bands"}
            bands: int = Field(32, ge=4, le=1024, description="Frequency bands of the spectrum.")
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}


def only_with(**values: Sequence[Json]) -> dict[str, Json]:
    """Declare that an option has an effect only with certain values of other options.

    A config that sets it with another value is refused.

    Args:
        values: By option, the values.

    Returns:
        The `json_schema_extra` of the field.

    Example:
        half_life: float = Field(5.0, ge=1, le=100, json_schema_extra=only_with(block=["mean"]))
    """
    return {ONLY_WITH: {option: list(accepted) for option, accepted in values.items()}}


def tunable(low: float, high: float, *, log: bool = False, step: float | None = None) -> dict[str, Json]:
    """Declare the values of an option that `anyrec tune` searches by default.

    Args:
        low: Smallest value; an integer for options that are integers, and so are `high` and `step`.
        high: Largest value.
        log: Search on a logarithmic scale.
        step: Distance between neighbouring values; None for any.

    Returns:
        The `json_schema_extra` of the field. `tunable(...) | only_with(...)` declares both.

    Example:
        dropout: float = Field(0.1, ge=0, le=0.99, json_schema_extra=tunable(0.0, 0.5))
    """
    return {TUNE: {"low": low, "high": high, "log": log, "step": step}}


Width = Annotated[int, Field(ge=1, le=16_384)]
"""Type of an option that is the number of units of a layer."""
