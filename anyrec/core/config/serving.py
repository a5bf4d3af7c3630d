"""Config of the HTTP server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anyrec.core.config.keys import Section


class EventsConfig(Section):
    """The log of the events that the server receives."""

    flush: Literal["batch", "interval", "never"] = Field(
        default="batch",
        description="When events are forced to the disk. batch: before they are acknowledged, together with those that "
        "arrive meanwhile. interval: every second; a power failure can lose a second. never: when the system does.",
    )
    segment_bytes: int = Field(
        default=64 << 20, ge=1 << 10, le=1 << 40, description="Size at which a new file of the log begins."
    )
    history: int = Field(
        default=200, ge=1, le=100_000, description="Latest events of each user that change the user's lists."
    )


class ServingConfig(Section):
    """The HTTP server: limits of requests, threads and events."""

    max_k: int = Field(default=1000, ge=1, le=100_000, description="Most items of one list, with those of `offset`.")
    max_batch: int = Field(default=1000, ge=1, le=100_000, description="Most users, pairs or events of one request.")
    max_body_bytes: int = Field(default=16 << 20, ge=1 << 10, le=1 << 30, description="Most bytes of a request.")
    max_image_bytes: int = Field(default=8 << 20, ge=1 << 10, le=1 << 28, description="Most bytes of an image.")
    max_text: int = Field(default=10_000, ge=1, le=10_000_000, description="Most characters of one text of a request.")
    timeout_seconds: float = Field(
        default=10.0, ge=0.01, le=3600, description="Time after which a request is answered with status 503."
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads that run the model.")
    micro_batch: int = Field(
        default=64, ge=1, le=10_000, description="Most requests for lists that are scored together if they wait."
    )
    events: EventsConfig = Field(default_factory=EventsConfig, description="The log of events.")
