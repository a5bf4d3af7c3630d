"""How many people had each item by the events that came, and not by the training of the model that serves."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterable

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.data.pairs import Pairs
from anyrec.serving.live.query import Id
from anyrec.serving.live.served import Served


class Popularity:
    """Distinct pairs of a user and an item of all events.

    A person counts once for an item, as in training, so a model that was trained on the events as well has counted the
    same pairs already: they are left out. The pairs that are new to a model are found once, by the first request after
    they came.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Id, Id]] = []
        self._had: set[tuple[Id, Id]] = set()
        self._since: Counter[Id] = Counter()
        self._counted = 0
        self._seen: weakref.ref[Pairs] | None = None  # a reference would keep the memory of a former version
        self._counting = threading.Lock()

    def add(self, events: Iterable[JsonObject]) -> None:
        """Add events, each with user_id and item_id."""
        for event in events:
            pair = event["user_id"], event["item_id"]
            if pair not in self._had:
                self._had.add(pair)
                self._pairs.append(pair)

    def since(self, served: Served) -> dict[Id, int]:
        """Return, by item, how many people had it by the events and not by the data of a version of the model."""
        with self._counting:
            seen = served.recommender.model.seen
            if self._seen is None or self._seen() is not seen:
                self._since, self._counted, self._seen = Counter(), 0, weakref.ref(seen)
            fresh = self._pairs[self._counted :]
            if fresh:
                self._counted += len(fresh)
                has = _has(served, seen, fresh)
                self._since.update(item for (_, item), known in zip(fresh, has, strict=True) if not known)
            return dict(self._since)


def _has(served: Served, seen: Pairs, pairs: list[tuple[Id, Id]]) -> list[bool]:
    """Return which pairs of a user and an item the model was trained on."""
    users = served.rows("user", [user for user, _ in pairs])
    items = served.rows("item", [item for _, item in pairs])
    has = (users >= 0) & (items >= 0)
    own, places = np.unique(users[has], return_inverse=True)
    owners, had = seen.take(own)
    has[has] = np.isin(places << 32 | items[has], owners << 32 | had.astype(np.int64))
    return has.tolist()
