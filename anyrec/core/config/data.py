"""Config of reading and splitting the data."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from anyrec.core.config.keys import MAX_ROWS, Section
from anyrec.core.config.sources import SourcesConfig
from anyrec.core.outside import Outside
from anyrec.core.types import Json

SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]+)?) ?(?:([kMGT]?)(i?)B)?")
"""A number of bytes: 500MB, 4 GiB, 1000."""


class DataConfig(Section):
    """How the data is read, and what counts as a positive interaction."""

    sources: Annotated[SourcesConfig | None, Outside("tables", "check")] = Field(
        default=None, description="Tables to read if no other data is given, and what their columns mean."
    )
    strict: bool = Field(
        default=False, description="Treat missing and corrupt image files as errors instead of missing values."
    )
    image_root: Annotated[str | None, Outside("a folder", "leave out")] = Field(
        default=None, description="Folder that relative file names start from; by default the folder of the data file."
    )
    allow_urls: Annotated[bool, Outside("addresses of images and tables", "leave out")] = Field(
        default=False, description="Allow images and tables to be fetched from other machines by their addresses."
    )
    allow_outside_root: Annotated[bool, Outside("files outside the image root", "leave out")] = Field(
        default=False,
        description="Allow records to name files outside `image_root` by absolute paths, '..' or links. Otherwise such "
        "a file counts as missing.",
    )
    unknown_ids: Literal["error", "drop", "keep"] = Field(
        default="error",
        description="Interactions whose user or item has no record. error: refuse the data. drop: drop the "
        "interactions. keep: add records with only the id.",
    )
    roles: dict[str, Literal["numbers", "timestamps", "items"]] = Field(
        default_factory=dict,
        description="Content of temporal features, as {'user.name': role}; inferred for the others.",
    )
    history: str | None = Field(
        default=None,
        description="Temporal user feature (for example prev_interactions) that lists the items a user had before all "
        "given interactions, oldest first. At inference a record passes its own history in it.",
    )
    positive_types: dict[str, Annotated[float, Field(ge=0, le=1e6)]] | None = Field(
        default=None,
        min_length=1,
        description="Interaction types that are positive, each with its weight (0 or more; 0 is not positive). By "
        "default all types with weight 1.",
    )
    min_rating: float | None = Field(
        default=None,
        ge=-1e9,
        le=1e9,
        description="Ratings below this are explicit negatives. By default every rating is positive.",
    )
    half_life_days: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="Age at which a training positive has half the weight, in days before the newest one. The newest "
        "is determined without a few timestamps far after all others.",
    )
    half_life_interactions: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e9,
        description="Number of later interactions of the same user after which a training positive has half the "
        "weight.",
    )
    drop_leaks: bool = Field(
        default=True, description="Drop item-id list features that contain held-out interactions (leaks)."
    )
    leak_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Fraction of held-out user-item pairs in a feature from which on the feature is a leak.",
    )
    max_users: int | None = Field(default=None, ge=1, le=MAX_ROWS, description="Read only the first this many users.")
    max_items: int | None = Field(default=None, ge=1, le=MAX_ROWS, description="Read only the first this many items.")
    max_interactions: int | None = Field(
        default=None, ge=1, le=MAX_ROWS, description="Read only the first this many interactions."
    )
    memory_limit: str = Field(
        default="auto",
        description="Interactions that need more memory than this to train on are kept in temporary files, with the "
        "same result: a size like 4GB or 500MB, or auto for half of the memory that is free.",
    )
    min_user_interactions: int = Field(
        default=0,
        ge=0,
        le=MAX_ROWS,
        description="Drop users with fewer interactions. Repeated with `min_item_interactions` until nothing changes.",
    )
    min_item_interactions: int = Field(
        default=0,
        ge=0,
        le=MAX_ROWS,
        description="Drop items with fewer interactions. Repeated with `min_user_interactions` until nothing changes.",
    )

    @field_validator("memory_limit", mode="before")
    @classmethod
    def _is_size(cls, value: Json) -> str:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or (text != "auto" and SIZE.fullmatch(text) is None):
            raise ValueError("expected a size like 4GB or 500MB, or 'auto'")
        return text


class SplitConfig(Section):
    """How the interactions are split into training, validation and test parts."""

    protocol: Literal[
        "auto", "leave_last_out", "leave_last_n", "global_time", "random", "cold_users", "cold_items", "none"
    ] = Field(
        default="auto",
        description="auto: global_time if timestamps are clock times, leave_last_out if they only order each user's "
        "own interactions, else random.",
    )
    validation: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Fraction of interactions (cold_users: users, cold_items: items) for validation; not for "
        "leave_last.",
    )
    test: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Fraction of interactions (cold_users: users, cold_items: items) for the test; not for leave_last.",
    )
    file: Annotated[str | None, Outside("a file", "check")] = Field(
        default=None, description="split.parquet of another run, which is used instead of all other keys here."
    )
    last_n: int = Field(
        default=1,
        ge=1,
        le=100_000,
        description="leave_last_n: interactions of each user in the validation part, and in the test part.",
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> SplitConfig:
        if self.validation + self.test > 1 - 1e-9:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing to train on; "
                "make their sum less than 1"
            )
        return self
