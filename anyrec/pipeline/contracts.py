"""The contracts of the pipeline: what a request is, what passes from stage to stage, what a source and a rule implement."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field
from torch import Tensor

from anyrec.core.contracts import Params as Options
from anyrec.data.list_columns import flat
from anyrec.data.order import position_from_end
from anyrec.model.fitted import FittedModel, ModelData


@dataclass
class Request:
    """Whom lists are made for. Made in blocks of users, so that (users, items) of it is bounded.

    model: the model, and the records it knows (`dataset.items`, `dataset.users`, `seen`). ids: (users,) their ids.
    users: their records, a known user's completed with what is known. rows: (users,) row among the known, -1 for a new one.
    represented: (users, ...) what the interaction reads. history: (users,) lists of `anyrec.data.histories.EVENT` or None; seen: (pairs,)
    rows of the request, ascending, and the item rows each has interacted with. context: values of this moment, as the request gave them.
    now: microseconds since 1970, UTC. rng: all randomness.
    allowed: (items,) or (users, items) bool, what all filters together let through, set before anything is retrieved; None for all.
    exclude: pairs that must not be listed whatever the rules say, in the form of `seen`. logged: what rules want kept with the answer.
    tokens: (users, features, dim) the users' feature vectors, where a ranker reads them.
    """

    model: FittedModel
    ids: pa.Array
    users: pa.Table
    rows: np.ndarray
    represented: Tensor
    seen: tuple[np.ndarray, np.ndarray]
    context: dict[str, Any]
    now: int
    rng: np.random.Generator
    history: pa.Array | None = None
    warnings: list[str] = field(default_factory=list)
    allowed: np.ndarray | None = None
    exclude: tuple[np.ndarray, np.ndarray] | None = None
    logged: list[Logged] = field(default_factory=list)
    tokens: Tensor | None = None

    @cached_property
    def events(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the users did, from `history`: (events,) rows of the request, ascending, item rows, and how many came later, from 0."""
        if self.history is None:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
        events, owners = flat(self.history)
        items = pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)
        return owners.astype(np.int64), items, position_from_end(owners)

    @property
    def items(self) -> pa.Table:
        """The records of all items that may be listed, one row an item."""
        return self.model.dataset.items


@dataclass(frozen=True)
class Logged:
    """Values of single entries of the lists, as the propensity with which an item was drawn. users, items, values: (entries,), rows
    of the request, item rows, and float64."""

    name: str
    users: np.ndarray
    items: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Lists:
    """items: (users, length) int64 item rows, best first, -1 past the end; scores: (users, length) float32, descending but where
    a rule moved an item, -inf past the end."""

    items: np.ndarray
    scores: np.ndarray


class Source:
    """Brings candidates. Its `k` is how many of each user."""

    type: ClassVar[str]
    scored: bool = False
    """Whether its scores are the model's own, so that its lists are in the model's order."""

    class Params(Options):
        k: int | None = Field(
            default=None,
            ge=1,
            le=1_000_000_000,
            description="Candidates of each user; by default as many as of all sources.",
        )

    def __init__(self, params: BaseModel | None = None):
        self.params: Any = params if params is not None else type(self).Params()

    def in_model_order(self, request: Request) -> bool:
        """Whether the scores of what it brings for this request are the model's own."""
        return self.scored

    def check(self, model: ModelData) -> None:
        """Raises ConfigError where an option does not fit the data, with every such fault, at a pointer from its own options."""

    def fit(self, model: FittedModel, rows: np.ndarray) -> None:
        """Learn what the source needs.

        Args:
            rows: (pairs,) interactions of `model.dataset`: the positives that the model learned from, one for each
                user-item pair (its latest), in file order.
        """

    def state(self) -> dict[str, np.ndarray]:
        """What `fit` learned, as named arrays."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take back what `state` returned."""

    def check_restored(self, model: FittedModel) -> None:
        """Called after `restore`. Raises ValueError if what was restored does not fit the model's users and items."""

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        """allowed: (items,) or (users, items) bool, what may be brought; None for all.

        What `request.exclude` names need not be brought either: it is taken out afterwards.
        """
        raise NotImplementedError(f"source '{self.type}' has no retrieve()")


class Rule:
    """Decides what may be listed (`allowed`), or in which order (`apply`), or both.

    If `allowed` fails, the request is refused: a filter is never skipped. If `apply` fails, `on_error` decides.
    """

    type: ClassVar[str]

    class Params(Options):
        on_error: Literal["refuse", "skip"] | None = Field(
            default=None,
            description="If the rule fails at a request: refuse it, or skip the rule with a warning (the default; filters refuse).",
        )

    def __init__(self, params: BaseModel | None = None):
        self.params: Any = params if params is not None else type(self).Params()

    def check(self, model: ModelData) -> None:
        """Raises ConfigError where an option does not fit the data, with every such fault, at a pointer from its own options."""

    def allowed(self, request: Request) -> np.ndarray | None:
        """Return (items,) or (users, items) bool, True for what may be listed; None if the rule filters nothing.

        It is called before anything is retrieved. An exception refuses the request.
        """
        return None

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        """The lists in another order, or with items taken out or put in; the first k of each are what the user gets.

        Items of the result are of `lists` or allowed by all rules.
        """
        return lists
