"""The trace of a request: a table of what each stage did with each item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anyrec.core.types import JsonObject
from anyrec.model.fitted import FittedModel
from anyrec.pipeline.candidate_lists import Candidates, is_listable, place_table
from anyrec.pipeline.contracts import Lists, Request

FILTERED = "barred"
"""Name of the event of a filtered item. It is part of the output's contract (docs/pipeline.md)."""
ORDER = {FILTERED: 0, "source": 1, "stage": 2, "moved": 3, "removed": 3, "added": 3, "logged": 4}
"""Order of a user's events in the table, by event."""


@dataclass(frozen=True)
class Events:
    """Events of one kind and origin.

    Attributes:
        event: A key of `ORDER`.
        by: The filter, source, stage or rule.
        rows: (events,) request rows.
        items: (events,) item rows.
        rank: (events,) from 1; None if the event has none.
        score: (events,); None if the event has none.
        before: (events,) the rank before the event; None if the event has none.
    """

    event: str
    by: str
    rows: np.ndarray
    items: np.ndarray
    rank: np.ndarray | None = None
    score: np.ndarray | None = None
    before: np.ndarray | None = None


def events_as_json(trace: pa.Table) -> list[JsonObject]:
    """Return the events of one user as `schemas/result.schema.json` describes them, without absent values."""
    rows = trace.drop_columns(["user_id"]).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


class Trace:
    """Collects events of the items that are listed, that a rule moved out of the first k, or that a filter excluded.

    The table has the columns user_id, item_id, event, by, rank, before, score; the last three are null if an event has
    none. Ranks count from 1. The events:

    - filtered (`FILTERED`): one of the model's own k best that the filter `by` excludes (`seen`, `candidates`, or a
      rule), with its rank and score in the model's own order.
    - source: the source `by` returned the item, with its rank and score in that source.
    - stage: the item's rank and score after the stage `by` (`retrieve`, `rank`).
    - moved, removed, added: the rule `by` moved the item from rank `before` to `rank`, removed it, or added it. Only
      items among the first k before or after the rule are recorded.
    - logged: a value that a rule returns with the answer, in `score`.

    Args:
        sources: Names of the pipeline's sources.
    """

    def __init__(self, sources: list[str]):
        self.sources = sources
        self.parts: list[Events] = []
        self.tables: list[pa.Table] = []
        self.stages: list[tuple[str, Lists]] = []
        self.candidates: Candidates | None = None
        self.num_items = 0

    def begin(self, request: Request, masks: list[tuple[str, np.ndarray]], own: Lists) -> None:
        """Start the trace of one request with the items that filters exclude.

        Args:
            request: The request.
            masks: Name and mask, (items,) or (users, items) bool, of each filter.
            own: The model's best items without any filter.
        """
        self.parts, self.stages, self.num_items = [], [], len(request.items)
        users, items = own.items.shape[0], own.items
        if request.exclude is not None:
            unseen = np.ones((users, self.num_items), bool)
            unseen[request.exclude] = False
            masks = [*masks, ("seen", unseen)]
        for name, mask in masks:
            rows, places = np.nonzero((items >= 0) & ~is_listable(items, mask))
            excluded = items[rows, places]
            self.parts.append(Events(FILTERED, name, rows, excluded, places + 1, own.scores[rows, places]))

    def retrieved(self, candidates: Candidates) -> None:
        """Record the candidates of the first stage."""
        self.candidates = candidates
        self.stage("retrieve", candidates.lists)

    def stage(self, name: str, lists: Lists) -> None:
        """Record the lists after a stage."""
        self.stages.append((name, lists))

    def ruled(self, name: str, before: Lists, after: Lists, k: int) -> None:
        """Record what a rule changed in the first k of the lists.

        Args:
            name: Name of the rule.
            before: The lists that the rule was given.
            after: The lists that it returned.
            k: The number of items that each user gets.
        """
        head = before.items[:, :k]
        new = self._places(after, head)
        rows, places = np.nonzero((head >= 0) & (new < 0))
        self.parts.append(Events("removed", name, rows, head[rows, places], before=places + 1))
        rows, places = np.nonzero((head >= 0) & (new >= k))
        moved = head[rows, places]
        self.parts.append(Events("moved", name, rows, moved, new[rows, places] + 1, before=places + 1))
        head = after.items[:, :k]
        old = self._places(before, head)
        rows, places = np.nonzero((head >= 0) & (old >= 0) & (old != np.arange(head.shape[1])))
        moved, scores = head[rows, places], after.scores[rows, places]
        self.parts.append(Events("moved", name, rows, moved, places + 1, scores, old[rows, places] + 1))
        rows, places = np.nonzero((head >= 0) & (old < 0))
        self.parts.append(Events("added", name, rows, head[rows, places], places + 1, after.scores[rows, places]))

    def finish(self, request: Request, lists: Lists) -> None:
        """Complete the trace of one request. lists: what the users get."""
        candidates = self.candidates
        if candidates is not None:
            columns = self._places(candidates.lists, lists.items)
            for name, places, scores in zip(self.sources, candidates.places, candidates.scores, strict=True):
                self._add_listed("source", name, lists.items, columns, places, scores)
        for name, stage in self.stages:
            ranks = np.broadcast_to(np.arange(stage.items.shape[1]), stage.items.shape)
            self._add_listed("stage", name, lists.items, self._places(stage, lists.items), ranks, stage.scores)
        listed = np.zeros((len(lists.items), self.num_items + 1), bool)
        np.put_along_axis(listed, lists.items, True, 1)
        for logged in request.logged:
            kept = listed[logged.users, logged.items]
            users, items = logged.users[kept], logged.items[kept]
            self.parts.append(Events("logged", logged.name, users, items, score=logged.values[kept]))
        self.tables.append(_table(self.parts, request.ids, request.model))

    def table(self, model: FittedModel) -> pa.Table:
        """Return the events of all requests."""
        if self.tables:
            return pa.concat_tables(self.tables)
        none = np.empty(0, np.int64)
        return _table([Events(FILTERED, "", none, none)], model.dataset.ids("user").slice(0, 0), model)

    def _add_listed(
        self, event: str, by: str, items: np.ndarray, columns: np.ndarray, places: np.ndarray, scores: np.ndarray
    ) -> None:
        """Add an event for each listed item that a source or stage returned.

        Args:
            event: The event.
            by: The source or stage.
            items: (users, k) listed item rows.
            columns: (users, k) column of each item in `places` and `scores`, -1 if it has none.
            places: (users, n) places from 0, -1 for none.
            scores: (users, n) scores.
        """
        if not places.shape[1]:
            return
        index = np.maximum(columns, 0)
        places, scores = np.take_along_axis(places, index, 1), np.take_along_axis(scores, index, 1)
        rows, ranks = np.nonzero((items >= 0) & (columns >= 0) & (places >= 0))
        self.parts.append(Events(event, by, rows, items[rows, ranks], places[rows, ranks] + 1, scores[rows, ranks]))

    def _places(self, lists: Lists, items: np.ndarray) -> np.ndarray:
        """Return (users, n) the place of each of `items: (users, n)` in the lists, from 0; -1 if it is not listed."""
        return np.take_along_axis(place_table(lists, self.num_items), items, 1)


def _table(parts: list[Events], user_ids: pa.Array, model: FittedModel) -> pa.Table:
    """Return the events of one block of users, sorted by user and `ORDER`."""
    lengths = [len(part.rows) for part in parts]
    rows = np.concatenate([part.rows for part in parts])
    items = np.concatenate([part.items for part in parts])

    def column(values: list[np.ndarray | None]) -> pa.Array:
        filled = [np.full(n, np.nan) if one is None else one for n, one in zip(lengths, values, strict=True)]
        return pa.array(np.concatenate(filled).astype(float), from_pandas=True)  # NaN becomes null

    table = pa.table(
        {
            "user_id": user_ids.take(pa.array(rows)),
            "item_id": model.dataset.ids("item").take(pa.array(items)),
            "event": pa.array(np.repeat([part.event for part in parts], lengths).astype(str), pa.string()),
            "by": pa.array(np.repeat([part.by for part in parts], lengths).astype(str), pa.string()),
            "rank": column([part.rank for part in parts]).cast(pa.int64()),
            "before": column([part.before for part in parts]).cast(pa.int64()),
            "score": column([part.score for part in parts]),
        }
    )
    order = np.lexsort((np.repeat([ORDER[part.event] for part in parts], lengths), rows))
    return table.take(pa.array(order))
