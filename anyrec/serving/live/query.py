"""A request for a list and its answer, independent of HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from anyrec.core.types import JsonObject
from anyrec.data.ids import Id, Side


@dataclass(frozen=True)
class Query:
    """A request for one list.

    Attributes:
        user_id: The user; None for a person without an id.
        user: The record of the user (groups of features), which replaces the known one; None for the known one.
        pictures: Names of features (`photo`) and the bytes of their pictures. Then no other pictures are read.
        history: Items that the user had, oldest first, after everything that is known.
        k: Items of the list.
        offset: Items before the list, which the user has seen on former pages.
        exclude: Items that are not to be listed.
        candidates: The only items that can be listed; None for all.
        where: A condition that all items meet (docs/rules.md).
        context: Values of the moment by name.
        now: Time of the request in microseconds since 1970; None for the present.
        include_seen: Also list items that the user had.
        explain: Add the reasons for each item.
        trace: Add what each stage did.
    """

    user_id: Id | None = None
    user: JsonObject | None = None
    pictures: tuple[tuple[str, bytes], ...] = ()
    history: tuple[Id, ...] = ()
    k: int = 10
    offset: int = 0
    exclude: tuple[Id, ...] = ()
    candidates: tuple[Id, ...] | None = None
    where: JsonObject | None = None
    context: JsonObject | None = None
    now: int | None = None
    include_seen: bool = False
    explain: bool = False
    trace: bool = False

    @property
    def wanted(self) -> int:
        """Items to ask the model for, so that `k` remain after `offset` and `exclude`."""
        return self.k + self.offset + len(set(self.exclude))

    @property
    def shares(self) -> tuple[int, bool] | None:
        """What queries that are scored together have in common; None for a query that is scored alone."""
        alone = (self.pictures or None, self.candidates, self.where, self.context, self.now)
        if any(one is not None for one in alone) or self.explain or self.trace:
            return None
        return self.wanted, self.include_seen


@dataclass(frozen=True)
class Listed:
    """One item of a list. rank: from 1, counted from the first item of the first page."""

    item_id: Id
    score: float
    rank: int
    reasons: JsonObject | None = None


@dataclass(frozen=True)
class Draws:
    """The items of a list that were drawn at random. Lists with the same user and seed have the same random numbers.

    Attributes:
        user: The user's id, or the one that a person without an id got for the request.
        seed: Seed of the random numbers.
        slots: Position from 1, item, and probability of the item given those of the earlier slots, by position.
    """

    user: Id
    seed: int
    slots: list[tuple[int, Id, float]]


class Version(Protocol):
    """What an answer says of the version of a model that made a list (`Served`)."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def file_features(self) -> frozenset[str]: ...

    def feature_names(self, side: Side) -> list[str]: ...

    def records(self, side: Side, ids: Sequence[Id], names: Sequence[str] | None = None) -> list[JsonObject]: ...


@dataclass(frozen=True)
class Listing:
    """The answer to a query.

    Attributes:
        items: The list, best first.
        served: The version that made the list. Another one, with other items, can serve meanwhile.
        fallback_reason: Why the list is not personal; None if it is.
        latency_ms: Milliseconds of each stage.
        warnings: What could not be read or done.
        trace: What each stage did; None if no trace was requested.
        recommendation_id: Names the list in events and in the log.
        experiment: The experiment that the user takes part in; None for none.
        variant: The variant that made the list.
        draws: What was drawn at random, also for earlier pages; None if nothing was.
    """

    items: list[Listed]
    served: Version = field(compare=False, repr=False)
    fallback_reason: str | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    trace: list[JsonObject] | None = None
    recommendation_id: str = ""
    experiment: str | None = None
    variant: str = "default"
    draws: Draws | None = None


def page_of(items: list[Listed], query: Query, before: int = 0) -> list[Listed]:
    """Return the page of a list that a query asks for, without the items that it excludes.

    Args:
        items: The list.
        query: The query.
        before: Items of former pages that the list does not have.
    """
    excluded = set(query.exclude)
    left = [item for item in items if item.item_id not in excluded]
    page = left[query.offset : query.offset + query.k]
    return [replace(item, rank=rank) for rank, item in enumerate(page, before + query.offset + 1)]
