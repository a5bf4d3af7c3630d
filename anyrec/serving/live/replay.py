"""What was received before a server was started: the log of changed records, merged into one change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

from anyrec.core.errors import DataError
from anyrec.core.types import JsonObject
from anyrec.data.sources.log_records import LogRecords

BLOCK = 4096
"""Items whose vectors are computed together."""


class Merged(LogRecords):
    """What some changes of records, one after another, amount to."""

    def blocks(self) -> Iterator[JsonObject]:
        """Yield changes that together lead to the same records."""
        items = iter(self.items.items())
        while block := list(islice(items, BLOCK)):
            yield {"items": block}
        if self.users or self.removed:
            yield {"users": list(self.users.items()), "removed_items": list(self.removed)}

    def counts(self, event: JsonObject) -> bool:
        """Whether an event is later than the removal of its user."""
        return event.get("received", event["timestamp"]) > self.forgotten.get(event["user_id"], -math.inf)


def in_parts(change: JsonObject, apply: Callable[[JsonObject], object]) -> None:
    """Apply a change of records of one side, in parts if they do not fit together.

    Records that were put one by one can fit the model and yet not each other: a feature that the model does not know
    can be a text in one and a number in the other.

    Raises:
        DataError: For a record that the model does not accept by itself.
    """
    try:
        apply(change)
    except DataError:
        ((side, records),) = change.items()
        if len(records) == 1:
            raise
        half = len(records) // 2
        in_parts({side: records[:half]}, apply)
        in_parts({side: records[half:]}, apply)
