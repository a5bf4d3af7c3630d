"""Contracts of the pipeline: the request, the lists that stages pass on, and the base classes of sources and rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field
from torch import Tensor

from anyrec.core.contracts import Params as Options
from anyrec.core.registry import params_of
from anyrec.core.types import ComponentParams, Json, JsonObject
from anyrec.data.list_columns import flat
from anyrec.data.order import position_from_end
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.pipeline.draws import uniform

PROPENSITY = "propensity"
"""Name of the logged probability by which an item was drawn, given the items before it."""


@dataclass
class Request:
    """A block of users who get lists.

    A request is split into blocks of users, so that arrays of shape (users, items) stay bounded.

    Attributes:
        model: The model, with the records it knows (`dataset.items`, `dataset.users`).
        ids: (users,) ids.
        users: (users,) records; missing features of a known user come from the model's own record.
        rows: (users,) int64 row of each user in `model.dataset.users`, -1 for an unknown user.
        represented: (users, ...) what the interaction reads of the users.
        seen: Two (pairs,) arrays: request row, ascending, and item row of each item that a user has interacted with.
        context: Values of this moment by name, from the request.
        now: Time of the request in microseconds since 1970, UTC.
        rng: Generator for randomness that may depend on all users of the request.
        history: (users,) lists of events (`anyrec.data.histories.EVENT`); None if the model keeps no histories.
        warnings: Sentences for the answer.
        allowed: (items,) or (users, items) bool, the combined mask of all filters, set before retrieval; None for all.
        exclude: Pairs that must not be listed whatever the rules return, in the form of `seen`; None for no pairs.
        logged: Values that rules return with the answer.
        tokens: (users, features, dim) feature vectors of the users, if a ranker reads them.
        seed: Seed of `draws`.

    Example:
        class Cheap(Rule):
            type = "cheap"

            def allowed(self, request):  # (items,) bool
                return request.items["continuous.price"].to_numpy() < 10
    """

    model: FittedModel
    ids: pa.Array
    users: pa.Table
    rows: np.ndarray
    represented: Tensor
    seen: tuple[np.ndarray, np.ndarray]
    context: JsonObject
    now: int
    rng: np.random.Generator
    history: pa.Array | None = None
    warnings: list[str] = field(default_factory=list)
    allowed: np.ndarray | None = None
    exclude: tuple[np.ndarray, np.ndarray] | None = None
    logged: list[Logged] = field(default_factory=list)
    tokens: Tensor | None = None
    seed: int = 0

    def draws(self, place: int, count: int) -> np.ndarray:
        """Return (users, count) float64, random from 0 to 1, which depend on `seed`, `place` and the user's id only.

        A user therefore gets the same list alone, among others, and on each of its pages.
        """
        return uniform(self.seed, self.ids, place, count)

    @cached_property
    def events(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The events of `history`.

        Returns:
            Three (events,) int64 arrays: request row, ascending; item row; and the number of later events of the same
            user.
        """
        if self.history is None:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
        events, owners = flat(self.history)
        items = pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)
        return owners.astype(np.int64), items, position_from_end(owners)

    @property
    def items(self) -> pa.Table:
        """The records of all items, one row for each."""
        return self.model.dataset.items


@dataclass(frozen=True)
class Logged:
    """Values of single list entries, for example the propensity with which an item was drawn.

    Attributes:
        name: Name of the value.
        users: (entries,) request rows.
        items: (entries,) item rows.
        values: (entries,) float64.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Lists:
    """Ranked items of each user of a request.

    Attributes:
        items: (users, length) int64 item rows, best first, -1 past the end of a list.
        scores: (users, length) float32, descending unless a rule moved an item; -inf past the end.

    Example:
        Lists(np.array([[3, 0], [1, -1]]), np.array([[0.9, 0.2], [0.5, -np.inf]], np.float32))
    """

    items: np.ndarray
    scores: np.ndarray


class Source:
    """Base class of a component that retrieves candidates.

    Args:
        params: The options; by default those of `Params()`.

    Attributes:
        type: Name of the source in a config.
        scored: Whether its scores are the model's own, so that its lists are in the model's order.
        is_complete: Whether it retrieves `k` items if that many may be listed.

    Example:
        class Cheapest(Source):
            type = "cheapest"

            def retrieve(self, request, k, allowed):
                prices = request.items["continuous.price"].to_numpy()
                scores = np.tile(-prices, (len(request.rows), 1)).astype(np.float32)
                if allowed is not None:
                    scores = np.where(allowed, scores, -np.inf)
                rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
                scores = np.take_along_axis(scores, rows, 1)
                return Lists(np.where(scores > -np.inf, rows, -1), scores)
    """

    type: ClassVar[str]
    scored: bool = False
    is_complete: bool = False

    class Params(Options):
        k: int | None = Field(
            default=None,
            ge=1,
            le=1_000_000_000,
            description="Candidates for each user; by default `retrieve.k`.",
        )

    def __init__(self, params: BaseModel | None = None):
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def in_model_order(self, request: Request) -> bool:
        """Return whether the scores that `retrieve` returns for this request are the model's own."""
        return self.scored

    def index(self, model: FittedModel) -> JsonObject | None:
        """Return the type and options of the index that `retrieve` searches for this model; None without one."""
        return None

    def check(self, model: ModelData) -> None:
        """Check the options against the data.

        Raises:
            ConfigError: Options do not fit; it has all faults, each at a JSON pointer within the options.
        """

    def fit(self, model: FittedModel, rows: np.ndarray) -> None:
        """Learn what the source needs.

        Args:
            model: The fitted model.
            rows: (pairs,) rows of `model.dataset.interactions`: the positives that the model was trained on, one for
                each user-item pair (its latest), in file order.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Return what `fit` learned, as named arrays."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` returned."""

    def check_restored(self, model: FittedModel) -> None:
        """Check the restored state against the model's users and items. It is called after `restore`.

        Raises:
            ValueError: The state does not fit.
        """

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        """Return candidates for each user.

        Args:
            request: The request. Pairs of `request.exclude` may be returned; they are removed afterwards.
            k: The maximum number of candidates for each user.
            allowed: (items,) or (users, items) bool, the items that may be returned; None for all items.
        """
        raise NotImplementedError(f"source '{self.type}' has no retrieve()")


class Rule:
    """Base class of a component that filters items (`allowed`), reorders lists (`apply`), or both.

    If `allowed` fails, the request is refused: a filter is never skipped. If `apply` fails, `on_error` decides.

    Args:
        params: The options; by default those of `Params()`.
        options: The options by name, as in a config, instead of `params`.

    Attributes:
        type: Name of the rule in a config.
        draws: Whether `apply` draws items at random, and records in `request.logged` the probability of each as
            PROPENSITY, given the items before it.

    Raises:
        ConfigError: With every option that is invalid.

    Example:
        class Reverse(Rule):
            type = "reverse"

            def apply(self, request, lists, k):
                order = np.argsort(np.where(lists.items >= 0, lists.scores, np.inf), axis=1)
                return Lists(*(np.take_along_axis(part, order, 1) for part in (lists.items, lists.scores)))
    """

    type: ClassVar[str]
    draws: ClassVar[bool] = False

    class Params(Options):
        on_error: Literal["refuse", "skip"] | None = Field(
            default=None,
            description="If the rule fails at a request: refuse the request, or skip the rule with a warning (the "
            "default; filters always refuse).",
        )

    def __init__(self, params: BaseModel | None = None, **options: Json):
        self.params: ComponentParams = params if params is not None else params_of(type(self), options, self.type)

    @property
    def on_error(self) -> Literal["refuse", "skip"] | None:
        """What happens if `apply` fails: the option of this name; None if it is not set or does not exist."""
        return self.params.on_error if isinstance(self.params, Rule.Params) else None

    def check(self, model: ModelData) -> None:
        """Check the options against the data.

        Raises:
            ConfigError: Options do not fit; it has all faults, each at a JSON pointer within the options.
        """

    def notes(self, model: ModelData) -> list[str]:
        """Return what the user should know before training, such as values of the options that no item has."""
        return []

    def k_decides(self) -> Literal["nothing", "end", "start"]:
        """Return what the `k` of `apply` decides: nothing, only what comes after the first k items, or these too."""
        return "start"

    def allowed(self, request: Request) -> np.ndarray | None:
        """Return which items may be listed. It is called before retrieval; an exception refuses the request.

        Returns:
            (items,) or (users, items) bool; None if the rule filters nothing.
        """
        return None

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        """Return reordered lists, of which the first k items are the user's result.

        The rule may remove items, and add items that all filters allow.

        Args:
            request: The request.
            lists: (users, length) candidates, best first; `length` is at least k if there are as many candidates.
            k: The number of items that each user gets.
        """
        return lists

    def chances(self, request: Request, lists: Lists, positions: Sequence[int], items: np.ndarray) -> np.ndarray:
        """Return the probabilities that `apply` moves given items to given positions, for a rule that `draws`.

        Args:
            request: The request.
            lists: (users, length) candidates, as for `apply`.
            positions: From 1, ascending.
            items: (users, positions) item rows, -1 for an item that the model does not have.

        Returns:
            (users, positions) probability that the item and those of all earlier `positions` are where they should be.
        """
        raise NotImplementedError(f"rule '{self.type}' has no chances()")
