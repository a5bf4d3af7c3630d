"""What befell the items of a request on their way: a table of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.model.fitted import FittedModel
from anyrec.pipeline.candidate_lists import is_open
from anyrec.pipeline.contracts import Lists, Request
from anyrec.pipeline.ranking.ranker import Candidates

TURN = {"barred": 0, "source": 1, "stage": 2, "moved": 3, "removed": 3, "added": 3, "logged": 4}
"""In which order a user's events stand."""


class Trace:
    """Events of the items that are listed, that a rule took from the first k, or that a filter kept out, as columns:

    user_id, item_id; event; by: who did it; rank, from 1, and score as they then were; before: the rank until then.

    barred: one of the model's own k best that the filter `by` keeps out (`seen`, `candidates`, or a rule); rank and score in the model's own order.
    source: the source `by` brought the item, at that rank and score of its own.
    stage: its rank and score when the stage `by` (`retrieve`, `rank`) was done.
    moved, removed, added: what the rule `by` did: from rank `before` to `rank`; out of the list; into it. Told of items among the
        first k before or after the rule.
    logged: a value of its own that a rule wants kept, as the propensity of an item it drew; in `score`.
    """

    def __init__(self, sources: list[str]):
        self.sources = sources
        self.parts: list[dict[str, Any]] = []
        self.tables: list[pa.Table] = []
        self.stages: list[tuple[str, Lists]] = []
        self.candidates: Candidates | None = None

    def begin(self, request: Request, masks: list[tuple[str, np.ndarray]], own: Lists, k: int) -> None:
        """own: the model's best of all items, whatever may be shown."""
        self.parts, self.stages, self.size = [], [], len(request.items)
        users, items = own.items.shape[0], own.items
        if request.exclude is not None:
            open_ = np.ones((users, self.size), bool)
            open_[request.exclude] = False
            masks = [*masks, ("seen", open_)]
        for name, mask in masks:
            rows, places = np.nonzero((items >= 0) & ~is_open(items, mask))
            self._add("barred", name, rows, items[rows, places], places + 1, own.scores[rows, places])

    def retrieved(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.stage("retrieve", candidates.lists)

    def stage(self, name: str, lists: Lists) -> None:
        self.stages.append((name, lists))

    def ruled(self, name: str, before: Lists, after: Lists, k: int) -> None:
        head = before.items[:, :k]
        to = self._places(after, head)
        rows, places = np.nonzero((head >= 0) & (to < 0))
        self._add("removed", name, rows, head[rows, places], before=places + 1)
        rows, places = np.nonzero((head >= 0) & (to >= k))
        self._add("moved", name, rows, head[rows, places], to[rows, places] + 1, before=places + 1)
        head = after.items[:, :k]
        came = self._places(before, head)
        rows, places = np.nonzero((head >= 0) & (came >= 0) & (came != np.arange(head.shape[1])))
        scores = after.scores[rows, places]
        self._add("moved", name, rows, head[rows, places], places + 1, scores, came[rows, places] + 1)
        rows, places = np.nonzero((head >= 0) & (came < 0))
        self._add("added", name, rows, head[rows, places], places + 1, after.scores[rows, places])

    def finish(self, request: Request, lists: Lists) -> None:
        """lists: what the users are given."""
        candidates = self.candidates
        if candidates is not None:
            at = self._places(candidates.lists, lists.items)
            for name, places, scores in zip(self.sources, candidates.places, candidates.scores, strict=True):
                self._tell("source", name, lists.items, at, places, scores)
        for name, stage in self.stages:
            ranks = np.broadcast_to(np.arange(stage.items.shape[1]), stage.items.shape)
            self._tell("stage", name, lists.items, self._places(stage, lists.items), ranks, stage.scores)
        listed = np.zeros((len(lists.items), self.size + 1), bool)
        np.put_along_axis(listed, lists.items, True, 1)
        for logged in request.logged:
            here = listed[logged.users, logged.items]
            self._add("logged", logged.name, logged.users[here], logged.items[here], score=logged.values[here])
        self.tables.append(self._block(request))

    def table(self, model: FittedModel) -> pa.Table:
        if self.tables:
            return pa.concat_tables(self.tables)
        empty = np.empty(0, np.int64)
        self.parts = []
        self._add("barred", "", empty, empty)
        ids = {f"{side}_id": model.dataset.ids(side).slice(0, 0) for side in ("user", "item")}
        return pa.table({**ids, **_columns(self.parts)})

    def _block(self, request: Request) -> pa.Table:
        """The events of one block of users, user by user."""
        rows = np.concatenate([part["row"] for part in self.parts])
        items = np.concatenate([part["item"] for part in self.parts])
        ids = {
            "user_id": request.ids.take(pa.array(rows)),
            "item_id": request.model.dataset.ids("item").take(pa.array(items)),
        }
        turns = np.concatenate([np.full(len(part["row"]), TURN[part["kind"]]) for part in self.parts])
        return pa.table({**ids, **_columns(self.parts)}).take(pa.array(np.lexsort((turns, rows))))

    def _tell(
        self, event: str, by: str, items: np.ndarray, at: np.ndarray, places: np.ndarray, scores: np.ndarray
    ) -> None:
        """at: (users, n) where each of `items` stands among the columns of places and scores, -1 where it does not."""
        if not places.shape[1]:
            return
        there = np.maximum(at, 0)
        places, scores = np.take_along_axis(places, there, 1), np.take_along_axis(scores, there, 1)
        rows, columns = np.nonzero((items >= 0) & (at >= 0) & (places >= 0))
        self._add(event, by, rows, items[rows, columns], places[rows, columns] + 1, scores[rows, columns])

    def _places(self, lists: Lists, items: np.ndarray) -> np.ndarray:
        """(users, n) the place of each of `items: (users, n)` in the lists, from 0; -1 where it is not."""
        table = np.full((len(items), self.size + 1), -1)
        np.put_along_axis(table, lists.items, np.broadcast_to(np.arange(lists.items.shape[1]), lists.items.shape), 1)
        table[:, -1] = -1
        return np.take_along_axis(table, items, 1)

    def _add(
        self,
        event: str,
        by: str,
        rows: np.ndarray,
        items: np.ndarray,
        rank: np.ndarray | None = None,
        score: np.ndarray | None = None,
        before: np.ndarray | None = None,
    ) -> None:
        nothing = np.full(len(rows), np.nan)
        self.parts.append(
            {
                "kind": event,
                "row": rows,
                "item": items,
                "event": np.full(len(rows), event),
                "by": np.full(len(rows), by),
                "rank": nothing if rank is None else rank,
                "before": nothing if before is None else before,
                "score": nothing if score is None else score,
            }
        )


def _columns(parts: list[dict[str, Any]]) -> dict[str, pa.Array]:
    """event, by, rank, before, score; null where an event has none."""
    joined = {
        name: np.concatenate([part[name] for part in parts]) for name in ("event", "by", "rank", "before", "score")
    }
    columns = {name: pa.array(joined[name].astype(str), pa.string()) for name in ("event", "by")}
    for name in ("rank", "before"):
        column = pa.array(joined[name].astype(float), from_pandas=True)
        columns[name] = column.cast(pa.int64())
    columns["score"] = pa.array(joined["score"].astype(float), from_pandas=True)
    return columns
