"""Config of the online features of users, which a Feast feature server answers with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from anyrec.core.config.keys import Section
from anyrec.core.outside import Outside
from anyrec.core.post_json import is_http


class FeastConfig(Section):
    """Where the features of the users of a request come from, if the request does not have them."""

    url: Annotated[str | None, Outside("an address", "leave out")] = Field(
        default=None, description="Feast's feature server, as http://localhost:6566; null uses none."
    )
    view: str = Field(
        default="user_features", pattern=r"^\w+$", description="Name of the feature view of users in Feast."
    )
    features: list[str] | None = Field(
        default=None,
        max_length=10_000,
        description="User features that are fetched, as categorical.job; null: all that the model has.",
    )
    timeout_seconds: float = Field(
        default=0.5, ge=0.001, le=600, description="Seconds until the whole answer to one request must have arrived."
    )
    on_error: Literal["mask", "refuse"] = Field(
        default="mask",
        description="Without a valid answer: treat all online features as missing, with a warning, or refuse the "
        "request.",
    )
    token_env: Annotated[str | None, Outside("an environment variable", "leave out")] = Field(
        default=None, pattern=r"^\w+$", description="Environment variable with the token of the feature server."
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not is_http(url):
            raise ValueError("give an address that begins with http:// or https://")
        return url
