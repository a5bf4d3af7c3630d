"""The log of lists with items that were drawn at random: what off-policy evaluation needs to repeat the requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from anyrec.core.errors import OutputError
from anyrec.core.types import JsonObject
from anyrec.serving.live.event_log import EventLog
from anyrec.serving.live.files import names_files
from anyrec.serving.live.query import Listing, Query

DRAWN = "drawn"
"""Folder of this log, in the folder of the log of events."""
MOST_IDS = 1000
"""Most ids of `history`, `exclude` and `candidates` of one request. Requests with more cannot be repeated."""
NOT_LOGGED = ("user_id", "pictures", "explain", "trace")
"""Parts of a query that do not change its list, or are logged elsewhere."""
DEFAULTS = {one.name: one.default for one in fields(Query)}


class DrawnLists:
    """The log. Its files are created by the first list with a drawn item; without such lists there are none.

    Args:
        folder: The folder of the log of events; None to log nothing.

    Attributes:
        log: The log; None before the first such list.
    """

    def __init__(self, folder: Path | None):
        self._folder = None if folder is None else folder / DRAWN
        self.log: EventLog | None = None
        self._opening = threading.Lock()

    def add(self, shown: Iterable[tuple[Query, Listing]], time: float) -> None:
        """Log the lists that have drawn items, on their page or before it.

        Args:
            shown: The requests and their lists.
            time: When the first of the lists was begun, in seconds since 1970. Later events had no part in them.
        """
        entries = [entry for query, listing in shown if (entry := _entry(query, listing, time)) is not None]
        if not entries or self._folder is None:
            return
        try:
            with self._opening:
                self.log = self.log or EventLog(self._folder, "interval")
            self.log.append(entries)
        except OutputError as error:  # the user has the list all the same
            logging.getLogger("anyrec.serving").error("lists with drawn items are not logged: %s", error)


def _entry(query: Query, listing: Listing, time: float) -> JsonObject | None:
    """Return what the log says of one list; None if nothing on its page was drawn."""
    draws = listing.draws
    if draws is None:
        return None
    slots = [slot for slot in draws.slots if slot[0] <= query.offset + query.k]
    if not slots or slots[-1][0] <= query.offset:
        return None
    return {
        "recommendation_id": listing.recommendation_id,
        "user_id": query.user_id,
        "time": time,
        "model": listing.served.digest,
        **({} if listing.experiment is None else {"experiment": listing.experiment, "variant": listing.variant}),
        "items": [item.item_id for item in listing.items],
        "draws": {"user": draws.user, "seed": draws.seed, "slots": slots},
        "request": _request(query, listing.served.file_features),
    }


def _request(query: Query, file_features: frozenset[str]) -> JsonObject | None:
    """Return what a request had besides its user, without defaults; None if it cannot be repeated from the log.

    Args:
        query: The request.
        file_features: Features whose values name files.
    """
    ids = len(query.history) + len(query.exclude) + len(query.candidates or ())
    if query.pictures or names_files(query.user or {}, file_features) or ids > MOST_IDS:
        return None
    values = {name: getattr(query, name) for name in DEFAULTS if name not in NOT_LOGGED}
    return {name: value for name, value in values.items() if value != DEFAULTS[name]}
