"""What every route works with: the live model, its threads, its limits and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from anyrec.core.errors import AnyrecError, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.ids import Side
from anyrec.retrieval.item_index import ItemIndex
from anyrec.retrieval.model_index import has_index, item_index
from anyrec.serving.http.batcher import Batcher
from anyrec.serving.http.limits import check
from anyrec.serving.http.messages import Explanation, Item, List, ModelName, Recommend, Step
from anyrec.serving.http.metrics import Metrics, age
from anyrec.serving.http.places import in_request
from anyrec.serving.http.problems import Refused
from anyrec.serving.http.upload import decoded
from anyrec.serving.live.event_log import log_bytes
from anyrec.serving.live.lookups import known
from anyrec.serving.live.query import Id, Listing, Query, Version
from anyrec.serving.live.served import Served
from anyrec.serving.live.service import Service

T = TypeVar("T")
MOST_WRITES = 8
"""Requests at a time that compute vectors of records, or wait for others that do; further ones are refused."""


class Host:
    """The live model with everything that the routes share.

    Args:
        service: The live model.
        folder: The model's folder, for reloads; None for a model that is not saved.

    Attributes:
        service: The live model.
        config: The limits.
        metrics: The figures of the server.
        folder: As above.
        stopping: Whether the server is about to stop, so that it takes no more requests.
    """

    def __init__(self, service: Service, folder: Path | None = None):
        self.service, self.folder, self.config = service, folder, service.config
        self.metrics, self.stopping = Metrics(), False
        self._batcher: Batcher[Query, Listing] = Batcher(
            service.lists, self.config.threads, self.config.micro_batch, self.config.timeout_seconds
        )
        self._writers, self._writes = ThreadPoolExecutor(MOST_WRITES, thread_name_prefix="write"), 0
        self.metrics.watch("anyrec_model_age_seconds", "Time since the model was loaded.", age(self._loaded))
        self.metrics.watch("anyrec_items", "Items that can be listed.", self._items)
        about = "Vectors in the index; 0 if lists score all items without one."
        self.metrics.watch("anyrec_index_items", about, self._index_items)
        self.metrics.watch(
            "anyrec_index_bytes", "Memory of the index, without the vectors that it is built from.", self._index_bytes
        )
        self.metrics.watch("anyrec_event_log_bytes", "Size of the log of events.", self._log_bytes)

    @property
    def served(self) -> Served:
        """The version of the model that serves now."""
        return self.service.served

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that one of the model's threads runs.

        Raises:
            OutOfTime: After `serving.timeout_seconds`, which is answered with status 503.
        """
        return await self._batcher.call(function, *arguments)

    async def call_slowly(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that may take minutes, in a thread of its own while lists are answered."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    async def write(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a change of records returns, as `call_slowly`: one that is stopped could never succeed.

        Raises:
            Refused: With status 503, if MOST_WRITES changes are under way.
        """
        if self._writes == MOST_WRITES:
            detail = f"{MOST_WRITES} other changes of records are under way."
            raise Refused(503, detail, headers={"retry-after": "1"})
        self._writes += 1
        work = asyncio.get_running_loop().run_in_executor(self._writers, function, *arguments)
        work.add_done_callback(self._written)
        return await asyncio.shield(work)  # it goes on if the client leaves

    def _written(self, work: asyncio.Future[T]) -> None:
        self._writes -= 1

    async def list_of(self, asked: Recommend) -> List:
        """Return the answer to one request for a list; errors as the live model raises them."""
        self.check(asked)
        return self._message(asked, await self._batcher.ask(self._query(asked)))

    async def lists_of(self, asked: Sequence[Recommend]) -> list[List | AnyrecError]:
        """Return the answer, or the error, to each of several requests."""
        found = await self.call(self.service.lists, [self._query(one) for one in asked])
        return [
            listing if isinstance(listing, AnyrecError) else self._message(one, listing)
            for one, listing in zip(asked, found, strict=True)
        ]

    def check(self, asked: BaseModel) -> None:
        """Raise Refused with every fault of a message that depends on this server's limits or model."""
        check(asked, self.config, self.served)

    def _query(self, asked: Recommend) -> Query:
        """Return a request as the live model reads it. Raises Refused for data that are no picture."""
        most = self.config.max_image_bytes
        found = {name: decoded(f"/images/{name}", text, most) for name, text in asked.images.items()}
        return asked.query(tuple(found.items()))

    def close(self) -> None:
        """End the threads and the log of events."""
        self._batcher.close()
        self._writers.shutdown()
        self.service.close()

    def _message(self, asked: Recommend, listing: Listing) -> List:
        served = listing.served
        self.metrics.listing(listing.latency_ms, listing.fallback_reason is not None)
        fields = fields_of(served, [one.item_id for one in listing.items], asked.fields)
        return List(
            recommendation_id=listing.recommendation_id,
            user_id=asked.user_id,
            items=[
                Item(
                    item_id=one.item_id,
                    score=one.score,
                    rank=one.rank,
                    fields=own,
                    explanation=None if one.reasons is None else Explanation.model_validate(one.reasons),
                )
                for one, own in zip(listing.items, fields, strict=True)
            ],
            model=ModelName(name=served.name, digest=served.digest),
            variant=listing.variant,
            fallback=listing.fallback_reason is not None,
            fallback_reason=listing.fallback_reason,
            latency_ms=listing.latency_ms,
            warnings=[
                *(in_request("/v1/recommend", one) for one in listing.warnings),
                *unknown_fields(served, asked.fields),
            ],
            trace=None if listing.trace is None else [Step.model_validate(one) for one in listing.trace],
        )

    def _loaded(self) -> float:
        return self.served.loaded

    def _index(self) -> ItemIndex | None:
        model = self.served.recommender.model
        return item_index(model) if has_index(model) else None

    def _index_items(self) -> float:
        index = self._index()
        return 0 if index is None else len(index.ids)

    def _index_bytes(self) -> float:
        index = self._index()
        return 0 if index is None else index.index.bytes

    def _log_bytes(self) -> float:
        return 0 if self.service.folder is None else log_bytes(self.service.folder)

    def _items(self) -> float:
        return len(self.served.recommender.dataset.items) - len(self.served.removed_rows())


def host_of(request: Request) -> Host:
    """Return the host of a request's application."""
    return request.app.state.host


def known_id(served: Served, side: Side, text: str) -> Id:
    """Return the id that a path names. Raises Refused with status 404 if it is unknown or removed."""
    key = served.typed(side, text)
    if not known(served, side, [key])[0]:
        raise Refused(404, f"no {side} has the id {text!r}.")
    return key


def unknown_fields(served: Version, wanted: bool | list[str]) -> list[str]:
    """Return a note on each wanted field that no item has. Arguments as for `fields_of`."""
    if isinstance(wanted, bool):
        return []
    names = served.feature_names("item")
    missing = [one for one in wanted if one not in names]
    return [f"/fields: the items have no feature {show(one)}. {did_you_mean(one, names)}".rstrip() for one in missing]


def fields_of(served: Version, ids: Sequence[Id], wanted: bool | list[str]) -> list[JsonObject | None]:
    """Return the features of items by group, or None for each if none are wanted.

    Args:
        served: The model.
        ids: Known ids.
        wanted: Names of features (`text.title`), True for all, False for none.
    """
    if wanted is False:
        return [None] * len(ids)
    return list(served.records("item", ids, None if wanted is True else wanted))
