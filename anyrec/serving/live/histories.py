"""The events of each user since the model was trained, which change the next list."""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Iterable

from anyrec.core.types import JsonObject
from anyrec.serving.live.numbers import Numbers
from anyrec.serving.live.query import Id

FIGURES = ("timestamp", "rating", "label", "weight")
"""Keys of events that are kept next to the ids and the type: they say whether a user liked an item, and when."""


class Histories:
    """The latest events of each user, as rings: 44 bytes for each event, none of which garbage collection visits.

    The events are rows of some arrays. The rows of a user are a circle: `_next` of each is the row of the next event,
    and that of the latest event is the row of the oldest one. A user with `most` events has the oldest one overwritten.

    Args:
        most: Most events that are kept for a user.
    """

    def __init__(self, most: int):
        self.most = most
        self._rings: dict[Id, tuple[int, int]] = {}  # the row of the latest event, and the number of events
        self._next, self._items, self._kinds = array("i"), array("i"), array("i")
        self._figures = {name: array("d") for name in FIGURES}  # NaN if an event does not have it
        self._free: list[int] = []  # rows of users who were forgotten
        self._item_numbers, self._kind_numbers = Numbers[Id](), Numbers[str | None]()
        self._lock = threading.Lock()  # a reader must not follow a circle that changes

    def add(self, events: Iterable[JsonObject]) -> None:
        """Add events, each with user_id, item_id, and optionally interaction_type and others of FIGURES."""
        with self._lock:
            for event in events:
                row = self._next_row(event["user_id"])
                self._items[row] = self._item_numbers[event["item_id"]]
                self._kinds[row] = self._kind_numbers[event.get("interaction_type")]
                for name, column in self._figures.items():
                    value = event.get(name)
                    column[row] = math.nan if value is None else value

    def of(self, user_id: Id | None) -> list[JsonObject]:
        """Return the events of a user as interactions of the data format, in the order of arrival."""
        if user_id is None:
            return []
        with self._lock:
            return [self._event(user_id, row) for row in self._rows(user_id)]

    def forget(self, user_id: Id) -> None:
        """Remove the events of a user."""
        with self._lock:
            self._free += self._rows(user_id)
            self._rings.pop(user_id, None)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._rings

    def __len__(self) -> int:
        """Number of users with events."""
        return len(self._rings)

    def _next_row(self, user: Id) -> int:
        """Return the row of a user's next event: a further one, or else that of the oldest event."""
        latest, count = self._rings.get(user, (-1, 0))
        if count == self.most:
            row = self._next[latest]
        else:
            row = self._row()
            self._next[row] = self._next[latest] if count else row
            if count:
                self._next[latest] = row
            count += 1
        self._rings[user] = row, count
        return row

    def _row(self) -> int:
        """Return a row that no user has."""
        if self._free:
            return self._free.pop()
        for column in (self._next, self._items, self._kinds, *self._figures.values()):
            column.append(0)
        return len(self._next) - 1

    def _rows(self, user_id: Id) -> list[int]:
        """Return the rows of a user's events, the oldest one first."""
        row, count = self._rings.get(user_id, (-1, 0))
        rows = []
        for _ in range(count):
            row = self._next[row]
            rows.append(row)
        return rows

    def _event(self, user_id: Id, row: int) -> JsonObject:
        event: JsonObject = {"user_id": user_id, "item_id": self._item_numbers.by_number[self._items[row]]}
        kind = self._kind_numbers.by_number[self._kinds[row]]
        if kind is not None:
            event["interaction_type"] = kind
        figures = {name: column[row] for name, column in self._figures.items() if not math.isnan(column[row])}
        if "label" in figures:
            figures["label"] = int(figures["label"])
        return event | figures
