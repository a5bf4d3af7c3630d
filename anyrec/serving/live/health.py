"""What keeps a server from its work, and what an operator should know of it. Nothing names a folder or a record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from anyrec.serving.live.event_log import EventLog
from anyrec.serving.live.service import Service


def log_faults(logs: Mapping[str, EventLog]) -> list[str]:
    """Return which logs cannot be written now, by trying those whose last write failed.

    Args:
        logs: By what they have.
    """
    found = {name: log.look_again() for name, log in logs.items()}
    return [f"the log of {name} cannot be written: {fault}" for name, fault in found.items() if fault is not None]


def notes(service: Service) -> list[str]:
    """Return what an operator should know although requests are answered."""
    if service.failed_reload is None:
        return []
    moment = datetime.fromtimestamp(service.failed_reload, timezone.utc).isoformat(timespec="seconds")
    return [f"the last reload failed at {moment}, and the version before it serves: the log of the server says why"]
