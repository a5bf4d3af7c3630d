"""The events of each user since the model was trained, which change the next list."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from anyrec.core.types import JsonObject
from anyrec.serving.live.query import Id

KEPT = ("user_id", "item_id", "interaction_type", "timestamp", "rating", "label", "weight")
"""Keys of events that are kept: those that say whether a user liked an item, and when."""


class Histories:
    """The latest events of each user.

    Args:
        most: Most events that are kept for a user.
    """

    def __init__(self, most: int):
        self.most = most
        self._events: dict[Id, deque[JsonObject]] = {}

    def add(self, events: Iterable[JsonObject]) -> None:
        """Add events, each with user_id, item_id, and optionally others of `KEPT`."""
        for event in events:
            own = self._events.setdefault(event["user_id"], deque(maxlen=self.most))
            own.append({name: event[name] for name in KEPT if event.get(name) is not None})

    def of(self, user_id: Id | None) -> list[JsonObject]:
        """Return the events of a user as interactions of the data format, in the order of arrival."""
        return list(self._events.get(user_id, ())) if user_id is not None else []

    def forget(self, user_id: Id) -> None:
        """Remove the events of a user."""
        self._events.pop(user_id, None)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._events

    def __len__(self) -> int:
        """Number of users with events."""
        return len(self._events)
