"""The result of a request: lists as tables, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anyrec.core.notebook import html_of_table, html_table
from anyrec.core.time_limit import check_time
from anyrec.core.types import JsonObject
from anyrec.model.fitted import FittedModel
from anyrec.pipeline.contracts import PROPENSITY, Lists, Request

STAGES = ("represent", "filter", "retrieve", "rank", "rerank")


@dataclass(frozen=True)
class Answer:
    """The result of a request.

    Attributes:
        table: user_id, item_id, score, rank (from 1).
        latency: Milliseconds by stage, and `total`.
        warnings: Sentences, for example on stages that were skipped.
        trace: Events of the items (`anyrec.pipeline.trace.Trace`); None if no trace was requested.
        index: Type and options of the index that the items were found by, such as {"type": "faiss", "kind": "hnsw"};
            the exhaustive one (`exact`) if all items were scored; None if no source searches all items.
        drawn: user_id, item_id, rank (from 1), propensity and seed of the items that were drawn at random; None if no
            rule draws.
    """

    table: pa.Table
    latency: dict[str, float]
    warnings: list[str]
    trace: pa.Table | None = None
    index: JsonObject | None = None
    drawn: pa.Table | None = None

    def __repr__(self) -> str:
        users = len(self.table.column("user_id").unique())
        number = len(self.warnings)
        warned = f", {number} warning{'s' if number > 1 else ''}" if number else ""
        return f"Answer({users:,} users, {len(self.table):,} items, {self.latency.get('total', 0.0):.1f} ms{warned})"

    def _repr_html_(self) -> str:
        """Return tables for notebooks: the lists, and the time of each stage with the warnings."""
        lists = html_of_table(repr(self), self.table)
        more = [(stage, f"{value:.1f} ms") for stage, value in self.latency.items()]
        more += [("warning", text) for text in self.warnings]
        return lists + html_table("Stages", ["stage", "time"], more)


class Clock:
    """Measures the time of each stage, summed over blocks of users."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add the time of the `with` block to a stage. Raises OutOfTime before it if the request's time is over."""
        check_time()
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of each stage that another clock has measured."""
        for stage, value in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    def milliseconds(self) -> dict[str, float]:
        """Return the milliseconds of each stage that ran, in the order of `STAGES`, and `total`."""
        found = {stage: 1000 * self.seconds[stage] for stage in STAGES if stage in self.seconds}
        return {**found, "total": sum(found.values())}


def as_table(request: Request, lists: Lists) -> pa.Table:
    """Return user_id, item_id, score, rank: users in their order, each list from its first item."""
    rows, places = np.nonzero(lists.items >= 0)
    return pa.table(
        {
            "user_id": request.ids.take(pa.array(rows)),
            "item_id": request.model.dataset.ids("item").take(pa.array(lists.items[rows, places])),
            "score": pa.array(lists.scores[rows, places]),
            "rank": pa.array(places + 1),
        }
    )


def drawn_items(request: Request, lists: Lists) -> list[pa.Table]:
    """Return a table as `Answer.drawn` of the listed items that were drawn at random; none if no rule draws."""
    logged = [one for one in request.logged if one.name == PROPENSITY]
    if not logged:
        return []
    users, items = (np.concatenate(part) for part in ([one.users for one in logged], [one.items for one in logged]))
    values = np.concatenate([one.values for one in logged])
    same = lists.items[users] == items[:, None]
    kept = same.any(1)
    table = {
        "user_id": request.ids.take(pa.array(users[kept])),
        "item_id": request.model.dataset.ids("item").take(pa.array(items[kept])),
        "rank": pa.array(same[kept].argmax(1) + 1),
        "propensity": pa.array(values[kept]),
        "seed": pa.array(np.full(int(kept.sum()), request.seed, np.uint64)),
    }
    return [pa.table(table)]


def empty_table(model: FittedModel) -> pa.Table:
    """Return a table as of `as_table` without rows."""
    ids = {f"{side}_id": model.dataset.ids(side).slice(0, 0) for side in ("user", "item")}
    return pa.table({**ids, "score": pa.array([], pa.float32()), "rank": pa.array([], pa.int64())})
