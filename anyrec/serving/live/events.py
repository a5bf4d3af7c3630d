"""The events that a server received: which ones, what each user did, and how many people had each item."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.serving.live.clock import Clock
from anyrec.serving.live.event_log import EventLog
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.key_set import KeySet
from anyrec.serving.live.popularity import Popularity

NEEDED = frozenset(("event_id", "user_id", "item_id", "timestamp"))


@dataclass(frozen=True)
class Received:
    """What became of some events.

    Attributes:
        accepted: How many changed the lists.
        duplicates: Those whose id was received before.
        warnings: What the model cannot read of their records.
    """

    accepted: int
    duplicates: int
    warnings: list[str]


class Events:
    """All events. An event is identified by its `event_id`, of which a hash is kept.

    Args:
        most: Most events of a user that are kept in `histories`.
        log: The log; None to keep events in memory only.

    Attributes:
        histories: The latest events of each user.
        popularity: How many people had each item.
        log: As above.
        clock: The times of the log.
    """

    def __init__(self, most: int, log: EventLog | None):
        self.histories, self.popularity = Histories(most), Popularity()
        self.log, self._ids, self.clock = log, KeySet("S16"), Clock()

    def replay(self, counts: Callable[[JsonObject], bool]) -> None:
        """Read the log. Events that do not count (`counts`) are those of users who were removed afterwards.

        Raises:
            DataError: If the log has something else than events.
        """
        for block in self.log.blocks() if self.log is not None else ():
            _check(block)
            self.clock.latest = max(self.clock.latest, *(event.get("received", -math.inf) for event in block))
            self._ids.add(_keys(block))
            self.popularity.add(block)
            self.histories.add(event for event in block if counts(event))

    def fresh(self, events: Sequence[JsonObject]) -> list[JsonObject]:
        """Return the events whose id was not received before."""
        known = self._ids.has(_keys(events))
        return [event for event, is_known in zip(events, known, strict=True) if not is_known]

    def add(self, events: Sequence[JsonObject]) -> None:
        """Log events, each of which is fresh and has another id, and count them.

        Raises:
            OutputError: If the log cannot be written; no event then counts.
        """
        if self.log is not None:
            self.log.append(events)
        self._ids.add(_keys(events))
        self.histories.add(events)
        self.popularity.add(events)


def _check(events: Sequence[JsonObject]) -> None:
    """Raise DataError for a line of a log that is no event: another program has written it."""
    for event in events:
        if not event.keys() >= NEEDED:
            what = f"the line {show(event)} of the log has no {sorted(NEEDED - event.keys())[0]!r}."
            raise DataError(Fault("the log of events", what, "Correct the line, or delete it.", "json"))


def _keys(events: Sequence[JsonObject]) -> list[bytes]:
    """Return 16 bytes for the id of each event: two of 10^12 events have the same by chance with probability 1e-15."""
    return [blake2b(event["event_id"].encode(), digest_size=16).digest() for event in events]
