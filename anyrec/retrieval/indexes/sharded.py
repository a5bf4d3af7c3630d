"""An index of several indexes, each of a part of the vectors; the best of each part are merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from anyrec.core.config import Component
from anyrec.core.contracts import Params as Options
from anyrec.core.discovery import discover
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.retrieval.index import Index
from anyrec.retrieval.results import SearchResult

ROWS = "rows.npy"
"""File of a shard with the row of each of its keys."""


class Sharded(Index):
    """Divide the vectors over several indexes of one type, search each of them, and merge the results.

    Each shard returns k eligible items if it has them, so the best of all shards are the best of the whole if the
    shards are exact; equal scores are ordered as in one index. A structure is built for one part at a time, which
    bounds the memory of building, and only the smallest part is built again when new items make that necessary.
    """

    type = "sharded"
    filters = True
    can_remove = True
    trials = ()

    class Params(Options):
        """Options of the index `sharded`."""

        shards: int = Field(default=4, ge=1, le=10_000, description="Number of parts; fewer if there are fewer items.")
        of: Component = Field(
            default_factory=lambda: Component(type="exact"),
            description="The index of each part by `type`, with its own options.",
            json_schema_extra={"kind": "index"},
        )

        @field_validator("of")
        @classmethod
        def _is_no_shard(cls, of: Component) -> Component:
            if of.type == Sharded.type:
                raise ValueError("a shard cannot be divided again; set more `shards`")
            return of

    params: Params
    _shards: list[Index]
    _rows: list[np.ndarray]
    """(keys of the shard,) int64, ascending: the row of each."""

    @property
    def requested_recall(self) -> float | None:
        return self._shard(0).requested_recall

    @classmethod
    def options_for_another(cls, options: JsonObject, name: str, registry: Registry) -> JsonObject:
        params = cls.Params.model_validate(options)
        of = registry.get("index", params.of.type).options_for_another(params.of.options(), name, registry)
        return {**options, "of": {"type": params.of.type, **of}}

    def check(self) -> None:
        self._shard(0).check()

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._rows = np.array_split(rows, min(self.params.shards, len(rows)))
        self._shards = [self._shard(number) for number in range(len(self._rows))]
        for shard, own in zip(self._shards, self._rows, strict=True):
            shard.build(vectors[own[0] : own[-1] + 1], queries=self.examples)  # a view: vectors are not copied

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        number = int(np.argmin([shard.store.count for shard in self._shards]))
        shard = self._shards[number]
        shard.add(len(self._rows[number]) + np.arange(len(rows)), vectors)
        self._rows[number] = np.concatenate([self._rows[number], rows])

    def _remove(self, rows: np.ndarray) -> None:
        for shard, own in zip(self._shards, self._rows, strict=True):
            places = np.searchsorted(own, rows)
            inside = places < len(own)
            inside[inside] = own[places[inside]] == rows[inside]
            shard.remove(places[inside])

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        found = []
        for shard, own in zip(self._shards, self._rows, strict=True):
            keys, scores = shard.search(queries, k, None if allowed is None else allowed[own])
            found.append((np.where(keys < 0, -1, own[keys]), scores))
        rows, scores = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        return SearchResult(rows, scores).best(k)

    def _save(self, folder: Path) -> None:
        for number, (shard, own) in enumerate(zip(self._shards, self._rows, strict=True)):
            place = folder / f"shard-{number}"
            shard.save(place)
            np.save(place / ROWS, own)

    def _load(self, folder: Path) -> None:
        places = [folder / f"shard-{number}" for number in range(len(list(folder.glob("shard-*"))))]
        self._rows = [np.load(place / ROWS, allow_pickle=False) for place in places]
        whole = np.sort(np.concatenate(self._rows)) if places else np.empty(0)
        if any(own.dtype != np.int64 for own in self._rows) or not np.array_equal(whole, np.arange(len(self.store))):
            raise ValueError("the shards do not have each row once")
        self._shards = [self._shard(number) for number in range(len(places))]
        for shard, place, own in zip(self._shards, places, self._rows, strict=True):
            shard.load(place, len(own))

    def _bytes(self) -> int:
        return sum(shard.bytes for shard in self._shards)

    def _shard(self, number: int) -> Index:
        """Return an empty index for a shard. The vectors that it gets are of unit length if the metric is cosine."""
        registry, of = self.registry or discover(), self.params.of
        cls = registry.get("index", of.type, "/index/of/type")
        options = cls.options_for_another(of.options(), f"shard-{number}", registry) if number else of.options()
        return cls.of(self.dim, "dot", registry.params("index", of.type, options, "/index/of"), registry)
