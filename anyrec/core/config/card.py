"""Config of the model card, the README.md of a model directory."""

from __future__ import annotations

from pydantic import Field

from anyrec.core.config.keys import Section


class CardConfig(Section):
    """What the model card says that cannot be found out from the model."""

    license: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,99}$",
        description="Licence of the model, as its identifier on the Hub, for example apache-2.0.",
    )
    data: str | None = Field(default=None, max_length=2000, description="What the training data are and who made them.")
    data_license: str | None = Field(
        default=None, max_length=2000, description="Licence of the training data, and whether a model may be published."
    )
    intended_use: str | None = Field(
        default=None, max_length=5000, description="What the model is for, and its users. null: a general text."
    )
    limitations: str | None = Field(
        default=None, max_length=5000, description="What the model must not be used for. null: a general text."
    )
