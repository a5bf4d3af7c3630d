"""Base classes of the config's parts, the choice of a component, and what one side's tower is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from anyrec.core.params import tunable
from anyrec.core.renamed import current_names, present_name
from anyrec.core.types import Json, JsonObject

TWO_TOWER = "two_tower"
"""The `model.type` that the rest of the config describes."""
MAX_DIM = 16_384
"""Largest dimension of a vector."""
MAX_ROWS = 10**12
"""Largest number of rows of a table."""


class Keys(BaseModel):
    """Base class of config objects.

    Attributes:
        renamed: The current name of each key that was renamed. The former name still works.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Json) -> Json:
        return current_names(values, cls.renamed) if cls.renamed and isinstance(values, dict) else values


class Section(Keys):
    """A part of the config with fixed keys."""

    model_config = ConfigDict(extra="forbid", validate_default=True, strict=True, allow_inf_nan=False)


class Component(Keys):
    """A component by name; the other keys are its options."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    type: str = Field(description="Name of the component; `anyrec plugins` lists all.")

    def options(self) -> JsonObject:
        """Return the component's own options."""
        return dict(self.model_extra or {})

    def named(self) -> bool:
        """Return True if `type` was set, False if it is the key's default."""
        return "type" in self.model_fields_set


class ModelChoice(Component):
    """The kind of model."""

    type: str = TWO_TOWER


class FusionChoice(Component):
    """The fusion of feature vectors."""

    type: str = "simple"


class InteractionChoice(Component):
    """The score of a user and an item."""

    type: str = "dot"


class LossChoice(Component):
    """The training loss."""

    type: str = "softmax"


class NegativesChoice(Component):
    """The sampler of negatives."""

    type: str = "in_batch"
    exclude: Literal["interacted", "positives"] = Field(
        default="interacted",
        description="Items that are no negatives of a user. interacted: all items that the user has a training "
        "interaction with. positives: only those of the user's training positives.",
    )


class IndexChoice(Component):
    """The vector index."""

    type: str = "exact"


class Feature(Component):
    """How the features of one group are encoded. Other keys are the encoder's own options."""

    renamed = {"together": "pool_group"}
    type: str | None = Field(  # type: ignore[assignment]  # unlike other components, a group has a default by itself
        default=None, description="Name of the encoder; by default the group's default encoder."
    )
    fields: dict[str, Feature | None] = Field(
        default_factory=dict, description="Choices for single features by name; null leaves a feature out."
    )
    pool_group: bool = Field(default=False, description="Average the group's feature vectors before the fusion.")

    @field_validator("type")
    @classmethod
    def _present_name(cls, name: str | None) -> str | None:
        """Accept the former name of an encoder."""
        return name and present_name("encoder", name)

    def within(self, group: Feature) -> Feature:
        """Return this choice for a single feature, completed by that of its group unless it names an encoder itself."""
        if self.type:
            return self
        return Feature.model_validate({"type": group.type, **group.options(), **self.options()})


class TowerConfig(Section):
    """Choices for one side that differ from the shared ones."""

    features: dict[str, Feature | None] = Field(
        default_factory=dict, description="Encoders by feature group; each replaces the shared choice for this side."
    )
    fusion: FusionChoice | None = Field(
        default=None,
        description="Fusion of this side; by default the shared one. Without `type`: the shared one with these "
        "options.",
    )
    feature_dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.99,
        description="Fraction of training examples in which each feature, except the id and the history, is masked. "
        "Prevents overfitting to near-unique feature values.",
        json_schema_extra=tunable(0.0, 0.5),
    )
