"""Config of the HTTP server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from anyrec.core.config.keys import Section
from anyrec.core.outside import Outside
from anyrec.core.types import JsonObject

NAME = r"^[\w.-]+$"
"""Names of experiments and variants."""


class EventsConfig(Section):
    """The log of the events that the server receives."""

    flush: Literal["batch", "interval", "never"] = Field(
        default="batch",
        description="When events are forced to the disk. batch: those of a request together, before they are "
        "acknowledged. interval: every second; a power failure can lose a second. never: when the system does.",
    )
    segment_bytes: int = Field(
        default=64 << 20, ge=1 << 10, le=1 << 40, description="Size at which a new file of the log begins."
    )
    history: int = Field(
        default=200, ge=1, le=100_000, description="Latest events of each user that change the user's lists."
    )


class VariantConfig(Section):
    """One variant of an experiment."""

    share: float = Field(default=1.0, ge=0, le=1e6, description="Share of the users, relative to the other variants.")
    config: JsonObject = Field(
        default_factory=dict,
        description="Changes of the model's config, as for `recommend --config`: `pipeline`, `index`. Empty for the "
        "model as it is.",
    )
    model: Annotated[str | None, Outside("a model", "check")] = Field(
        default=None, description="Folder of another model that answers; null for the one that serves."
    )
    shadow: bool = Field(
        default=False,
        description="This variant answers all users of the experiment and its lists are logged, but never shown.",
    )


class ExperimentConfig(Section):
    """A comparison of variants, each of which serves a share of the users."""

    name: str = Field(pattern=NAME, max_length=100, description="Name of the experiment.")
    salt: str = Field(
        default="", max_length=200, description="Another value draws other variants for the users; by default the name."
    )
    traffic: float = Field(
        default=1.0, ge=0, le=1, description="Share of all users who take part. The sum over experiments is at most 1."
    )
    variants: dict[Annotated[str, Field(pattern=NAME, max_length=100)], VariantConfig] = Field(
        min_length=2, max_length=100, description="The variants by name; the first one is what others compare with."
    )

    @model_validator(mode="after")
    def _one_variant_is_shown(self) -> ExperimentConfig:
        shown = [one for one in self.variants.values() if not one.shadow]
        if not shown or next(iter(self.variants.values())).shadow or not sum(one.share for one in shown):
            raise ValueError("the first variant must be shown, and the shares of the shown ones must not all be 0")
        return self


class ServingConfig(Section):
    """The HTTP server: limits of requests, threads, events and experiments."""

    max_k: int = Field(default=1000, ge=1, le=100_000, description="Most items of a list, and of the pages before.")
    max_batch: int = Field(default=1000, ge=1, le=100_000, description="Most users, pairs or events of one request.")
    max_body_bytes: int = Field(default=16 << 20, ge=1 << 10, le=1 << 30, description="Most bytes of a request.")
    max_image_bytes: int = Field(default=8 << 20, ge=1 << 10, le=1 << 28, description="Most bytes of an image.")
    image_names: bool = Field(
        default=False,
        description="Open the files within the image root that records of requests name. Addresses and files "
        "elsewhere are never opened for a request.",
    )
    max_text: int = Field(default=10_000, ge=1, le=10_000_000, description="Most characters of one text of a request.")
    timeout_seconds: float = Field(
        default=10.0,
        ge=0.01,
        le=3600,
        description="Time after which a request is answered with status 503. Changes of records and reloads have none. "
        "It is also the longest pause within the body of a request (status 408), and what requests have left when the "
        "server is stopped.",
    )
    drain_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Time after SIGTERM in which /readyz answers 503 and other requests are still answered, so that a "
        "load balancer sends them elsewhere.",
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads that run the model.")
    micro_batch: int = Field(
        default=64, ge=1, le=10_000, description="Most requests for lists that are scored together if they wait."
    )
    events: EventsConfig = Field(default_factory=EventsConfig, description="The log of events.")
    experiments: list[ExperimentConfig] = Field(
        default_factory=list, max_length=100, description="Experiments; a user takes part in one at most."
    )

    @model_validator(mode="after")
    def _traffic_is_shared(self) -> ServingConfig:
        names = [one.name for one in self.experiments]
        if len(set(names)) < len(names):
            raise ValueError("two experiments have the same name")
        if sum(one.traffic for one in self.experiments) > 1 + 1e-9:
            raise ValueError("the traffic of all experiments is more than 1")
        return self
