"""Checks of requests that depend on the server: its limits, and the type of the ids of its model."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from anyrec.core.config import ServingConfig
from anyrec.core.errors import Fault
from anyrec.core.values import show
from anyrec.data.ids import SIDES, Side
from anyrec.serving.http.problems import Refused, counted
from anyrec.serving.live.served import Served

IDS: dict[str, Side] = {
    "user_id": "user",
    "user_ids": "user",
    "item_id": "item",
    "item_ids": "item",
    "history": "item",
    "exclude": "item",
    "candidates": "item",
}
"""The keys of requests that are ids, or lists of ids."""
NUMBERS = ("k", "offset")
"""The keys that are numbers of items."""
RECORDS = ("user", "item", "users", "items", "text", "fields")
"""The keys that have texts."""
LISTS = ("requests", "pairs", "item_ids", "user_ids", "users", "items", "events")
"""The keys whose lengths add up to the size of a request."""


def check(asked: BaseModel, config: ServingConfig, served: Served) -> None:
    """Check a message.

    Raises:
        Refused: With every fault: too many items, users or records, a text that is too long, ids of another type than
            the model's.
    """
    faults = _Check(config, served).faults(asked, "")
    if faults:
        raise Refused(422, counted(faults), faults)


class _Check:
    def __init__(self, config: ServingConfig, served: Served):
        self.config = config
        self.whole = {side: served.has_whole_ids(side) for side in SIDES}

    def faults(self, message: BaseModel, where: str) -> list[Fault]:
        """Return the faults of a message and the messages within it. where: its JSON pointer."""
        found, worked_on = [], 0
        for name in type(message).model_fields:
            value, place = getattr(message, name), f"{where}/{name}"
            if value is None:
                continue
            if name in NUMBERS and value > self.config.max_k:
                found.append(Fault(place, f"{self.config.max_k:,} at most; found {value:,}."))
            if name in IDS:
                found += self._ids(IDS[name], value, place)
            if name in RECORDS:
                found += self._texts(value, place)
            if name in LISTS:
                worked_on += len(value)
            for n, one in enumerate(value if isinstance(value, list) else ()):
                if isinstance(one, BaseModel):
                    found += self.faults(one, f"{place}/{n}")
        found += self._texts(message.model_extra or {}, where)
        if worked_on > self.config.max_batch:
            found.append(Fault(where or "/", f"{self.config.max_batch:,} at most; found {worked_on:,}."))
        return found

    def _ids(self, side: Side, value: object, where: str) -> list[Fault]:
        ids = value if isinstance(value, list) else [value]
        kind = "whole numbers" if self.whole[side] else "texts"
        return [
            Fault(where, f"the ids of this model's {side}s are {kind}; found {show(one)}.", kind="type")
            for one in ids
            if isinstance(one, int) != self.whole[side]
        ]

    def _texts(self, value: object, where: str) -> list[Fault]:
        """Return a fault for each text within a value that is too long."""
        if isinstance(value, str) and len(value) > self.config.max_text:
            return [Fault(where, f"a text has {self.config.max_text:,} characters at most; found {len(value):,}.")]
        if isinstance(value, dict):
            return [fault for key, one in value.items() for fault in self._texts(one, f"{where}/{key}")]
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [fault for n, one in enumerate(value) for fault in self._texts(one, f"{where}/{n}")]
        return []
