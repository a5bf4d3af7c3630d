"""Logged requests answered again by a candidate, with what was known at the time of each."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np

from anyrec.core.errors import AnyrecError, DataError, InputError
from anyrec.core.progress import progress_bar
from anyrec.core.types import JsonObject
from anyrec.pipeline.chances import chances, check_draws
from anyrec.recommender import Recommender
from anyrec.serving.experiments.drawn_rows import DrawnList
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.query import Id, Query
from anyrec.serving.live.served import Served
from anyrec.serving.live.service import CHANGES


class Candidate:
    """A candidate as it would have served while lists were logged.

    Events and changes of records come in the order in which the server received them, so a request is answered with
    what came before it.

    Args:
        recommender: The candidate.
        folder: The folder of the log of events.

    Attributes:
        unknown: Drawn items that the candidate did not know. It shows them with probability 0.
        failed: Requests that the candidate refused. It shows nothing.
        had: Drawn items that the user had already by the candidate's training data, in requests for other items.
        not_added: Items that came or changed since the training, and that the candidate cannot add.
        error: The last refusal.

    Raises:
        InputError: If the candidate draws items with unknown probabilities.
    """

    def __init__(self, recommender: Recommender, folder: Path):
        self._served, self._folder = Served.of(recommender), folder
        self._histories = Histories(recommender.config.serving.events.history)
        self.unknown = self.failed = self.had = self.not_added = 0
        self.error: AnyrecError | None = None
        check_draws(recommender.stages())

    @property
    def has_whole_ids(self) -> bool:
        """Whether the ids of its items are whole numbers; otherwise they are texts."""
        return self._served.has_whole_ids("item")

    def chances(self, lists: Sequence[DrawnList], progress: bool = True) -> np.ndarray:
        """Return (rows,) the probability that the candidate shows the drawn items of the list up to this one.

        Args:
            lists: Lists, by time, with the rows from 0 one after the other.
            progress: Show a progress bar.
        """
        found: list[np.ndarray] = []
        streams = (
            ((one.time, 0, one) for one in lists),  # first, so that events at the same time are later ones
            ((one.get("time", -math.inf), 1, one) for one in read_events(self._folder / CHANGES)),
            ((one.get("received", -math.inf), 2, one) for one in read_events(self._folder)),
        )
        with progress_bar("lists", len(lists), progress) as bar:
            for _, _, one in heapq.merge(*streams, key=itemgetter(0, 1)):
                if isinstance(one, DrawnList):
                    found.append(self._of_list(one))
                    bar.advance()
                elif "event_id" in one:
                    self._histories.add([one])
                else:
                    self._change(one)
        return np.concatenate(found)

    def _of_list(self, one: DrawnList) -> np.ndarray:
        """Return (rows of the list,) the probabilities of its rows."""
        items = [item for _, item, _ in one.draws.slots]
        rows = self._served.rows("item", items)
        own = one.rows.stop - one.rows.start
        self._count(one.query, rows[-own:])
        try:
            found = self._drawn(one, rows) if self._served.draws else self._listed(one)
        except AnyrecError as error:
            self.failed, self.error = self.failed + 1, error
            found = np.zeros(len(items))
        return found[-own:]

    def _count(self, query: Query, rows: np.ndarray) -> None:
        """Count the drawn items of a list, (slots,) item rows, that the candidate does not know or its user had."""
        known = rows[rows >= 0]
        self.unknown += len(rows) - len(known)
        if query.user_id is not None and not query.include_seen:
            user = self._served.rows("user", [query.user_id])
            if user[0] >= 0:
                seen = self._served.recommender.model.seen
                self.had += int(seen.contains(np.full(len(known), user[0]), known).sum())

    def _listed(self, one: DrawnList) -> np.ndarray:
        """Return (slots,) 1 if the candidate, which draws nothing, lists the items up to this one, else 0."""
        query = replace(one.query, offset=0, k=one.query.offset + one.query.k)
        (listing,) = self._served.lists([query], self._histories)
        if isinstance(listing, AnyrecError):
            raise listing
        place = {item.rank: item.item_id for item in listing.items}
        return np.cumprod([float(place.get(position) == item) for position, item, _ in one.draws.slots])

    def _drawn(self, one: DrawnList, rows: np.ndarray) -> np.ndarray:
        """Return (slots,) the probability that the candidate, which draws items as well, lists those up to this one."""
        query, served = one.query, self._served
        known = query.user_id is not None and bool(served.knows("user", [query.user_id])[0])
        recommender = served.recommender if query.where is None else served.filtered_by(query.where)
        return chances(
            recommender.stages(),
            recommender.model,
            served.people([query], self._histories, [known]),
            min(query.wanted, len(recommender.dataset.items)),
            [position for position, _, _ in one.draws.slots],
            rows[None],
            exclude_seen=not query.include_seen,
            candidates=served.listable(query),
            context=query.context,
            now=query.now,
        )[0]

    def _change(self, change: JsonObject) -> None:
        """Apply a change of records. Items that the candidate cannot add or change stay as they are."""
        items: dict[Id, JsonObject] = dict(change.get("items", ()))
        wider = None
        try:
            wider, _ = self._served.prepare({"items": list(items.items())})
        except (DataError, InputError) as error:
            self.not_added, self.error = self.not_added + len(items), error
        self._served = self._served.with_change(change, wider)
        for user in change.get("removed_users", ()):
            self._histories.forget(user)
