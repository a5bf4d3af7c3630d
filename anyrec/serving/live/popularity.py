"""How many people had each item by the events that came, and not by the training of the model that serves."""

from __future__ import annotations

import threading
import weakref
from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.data.ids import Side
from anyrec.data.pairs import Pairs
from anyrec.serving.live.key_set import KeySet
from anyrec.serving.live.numbers import Numbers
from anyrec.serving.live.query import Id
from anyrec.serving.live.served import Served


class Popularity:
    """Distinct pairs of a user and an item of all events.

    A person counts once for an item, as in training, so a model that was trained on the events as well has counted the
    same pairs already: they are left out. The pairs that are new to a model are found once, by the first request after
    they came.

    A pair is one number of 64 bits: that of the user in the upper half, that of the item in the lower one.
    """

    def __init__(self) -> None:
        self._users, self._items = Numbers[Id](), Numbers[Id]()
        self._pairs = KeySet("u8")
        self._fresh = array("Q")  # pairs that were not counted yet
        self._since: np.ndarray = np.zeros(0, np.int64)  # by number of the item
        self._seen: weakref.ref[Pairs] | None = None  # a reference would keep the memory of a former version
        self._adding, self._counting = threading.Lock(), threading.Lock()

    def add(self, events: Iterable[JsonObject]) -> None:
        """Add events, each with user_id and item_id."""
        with self._adding:
            keys = list({self._users[event["user_id"]] << 32 | self._items[event["item_id"]]: None for event in events})
            new = [key for key, known in zip(keys, self._pairs.has(keys), strict=True) if not known]
            self._pairs.add(new)
            self._fresh.extend(new)

    def since(self, served: Served) -> dict[Id, int]:
        """Return, by item, how many people had it by the events and not by the data of a version of the model."""
        with self._counting:
            seen = served.recommender.model.seen
            others = self._seen is None or self._seen() is not seen
            with self._adding:
                parts = list(self._pairs.blocks()) if others else [np.array(self._fresh, np.uint64)]
                self._fresh, count = array("Q"), len(self._items)
            since = np.zeros(count, np.int64) if others else np.pad(self._since, (0, count - len(self._since)))
            for pairs in parts:
                since += np.bincount(self._new_to(served, pairs), minlength=count)
            self._since, self._seen = since, weakref.ref(seen)
            return {self._items.by_number[n]: int(since[n]) for n in np.flatnonzero(since)}

    def _new_to(self, served: Served, pairs: np.ndarray) -> np.ndarray:
        """Return the number of the item of each pair that a model was not trained on."""
        numbers = (pairs >> 32).astype(np.int64), (pairs & 0xFFFFFFFF).astype(np.int64)
        users = _rows(served, "user", self._users.by_number, numbers[0])
        items = _rows(served, "item", self._items.by_number, numbers[1])
        return numbers[1][~_has(served.recommender.model.seen, users, items)]


def _rows(served: Served, side: Side, ids: Sequence[Id], numbers: np.ndarray) -> np.ndarray:
    """Return (numbers,) the rows in a model of the users or items with some numbers; -1 for those that it has not."""
    own, places = np.unique(numbers, return_inverse=True)
    return served.rows(side, [ids[n] for n in own.tolist()])[places]


def _has(seen: Pairs, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return (pairs,) bool, which pairs of a row of a user and a row of an item a model was trained on."""
    has = (users >= 0) & (items >= 0)
    own, places = np.unique(users[has], return_inverse=True)
    owners, had = seen.take(own)
    has[has] = np.isin(places << 32 | items[has], owners << 32 | had.astype(np.int64))
    return has
