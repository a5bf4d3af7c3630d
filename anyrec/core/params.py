"""The base class of every component's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from anyrec.core.param_keys import ONLY_WITH
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


Width = Annotated[int, Field(ge=1, le=16_384)]
"""Type of an option that is the number of units of a layer."""
