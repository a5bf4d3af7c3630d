"""Config of the blend of the towers with classical models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from anyrec.core.config.keys import Component, Section


class BlendConfig(Section):
    """Classical models whose scores are added to those of the towers, with weights chosen on the validation part."""

    models: Literal["auto"] | Annotated[list[Component], Field(min_length=1, max_length=100)] = Field(
        default="auto",
        description="Classical models to choose from. Options that are set here are not tuned. auto: all baselines "
        "that the data and the size of the catalogue allow.",
    )
    trials: int = Field(
        default=10, ge=1, le=10_000, description="Most fits of each classical model while its options are tuned."
    )
    rounds: int = Field(
        default=20, ge=1, le=1000, description="Most steps of the ensemble selection, each of which adds one model."
    )
    users: int = Field(
        default=5000, ge=1, le=10**9, description="Most validation users on which options and weights are chosen."
    )
    refit: bool = Field(
        default=True,
        description="Fit the chosen classical models again on the training and validation parts, before the test.",
    )
