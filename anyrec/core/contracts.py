"""What a plugin implements: one base class a kind of component.

A component is a class with a `type` (its name in a config), a nested pydantic `Params` (its options)
and its contract's methods. Defining the class in a plugin folder is enough for the frame to find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from anyrec.core.ragged import Prepared, Ragged, Values
from anyrec.core.windows import Batch, PackedSequences


class Params(BaseModel):
    """Base of every component's options: unknown keys are refused, values have exactly the declared type and are finite.

    Give every number both bounds, so that no value exhausts the memory.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Width = Annotated[int, Field(ge=1, le=16_384)]
"""Of a layer, as an option."""


@dataclass
class Context:
    """What the frame tells an encoder about its surroundings.

    root: folder that relative file names (images, audio) start from.
    allow_urls: whether a feature may name a URL to fetch.
    allow_outside_root: whether a feature may name a file outside `root`.
    cache: folder for vectors that are costly to compute.
    seed: for any randomness in `fit`.
    items: the known items' records, which the rows of a history name; as the recommender that now prepares knows them.
    trusted: False for a loaded model whose origin the user does not vouch for: what such a model names outside its own folder must not
        be opened, and nothing may be downloaded for it.
    open_files: False if the files that the known records name must not be opened: the model is not trusted, and nobody else has named
        the folder they are in.
    warnings: sentences the encoder wants the user to read (say, how many images were unreadable).
    """

    root: Path = field(default_factory=Path)
    allow_urls: bool = False
    allow_outside_root: bool = False
    strict: bool = False
    cache: Path | None = None
    seed: int = 0
    device: str = "cpu"
    items: pa.Table | None = None
    trusted: bool = True
    open_files: bool = True
    warnings: list[str] = field(default_factory=list)


_OF_REQUEST: ContextVar[Context | None] = ContextVar("context of a request", default=None)


@contextmanager
def during_request(context: Context | None) -> Iterator[None]:
    """Within the block, every encoder's `context` in this thread is `context`; None leaves the encoders' own."""
    token = _OF_REQUEST.set(context)
    try:
        yield
    finally:
        _OF_REQUEST.reset(token)


class Encoder(nn.Module):
    """Turns one feature's column into vectors.

    Life: `fit` on the training rows, `prepare` once for all rows, `build`, then `forward` every step on rows of
    what `prepare` returned. A saved encoder comes back through `restore` and `build`. A missing value never
    needs care in `forward`: whatever comes out for an absent row is replaced by the fusion's learned stand-in,
    but it must be finite, as must its gradient.
    """

    type: ClassVar[str]
    group: ClassVar[str] = ""
    """The data group it reads (`text`, `image`, ...); by default its `type`."""
    role: ClassVar[str] = ""
    """Within the group `temporal`: `numbers`, `timestamps` or `items`."""
    joint: ClassVar[bool] = False
    """Whether texts have a place among the vectors that `prepare` returns, as with CLIP: then `embed_texts` gives it."""

    class Params(Params):
        pass

    def __init__(self, params: BaseModel | None = None, output_dim: int = 64):
        super().__init__()
        self.params: Any = params if params is not None else type(self).Params()
        self.output_dim = output_dim
        self.input_dim: int | None = None
        self.context = Context()

    @property
    def context(self) -> Context:
        """The surroundings of what is prepared now: the request's own while one is prepared, else the model's.

        A request is prepared in the thread that asks: read `self.context` there, before starting threads.
        """
        return _OF_REQUEST.get() or self._context

    @context.setter
    def context(self, value: Context) -> None:
        self._context = value

    def fit(self, column: pa.Array) -> None:
        """Learn vocabularies and statistics from the training rows of `column: (rows,)`, nulls included."""

    def prepare(self, column: pa.Array) -> Values | Prepared:
        """`column: (rows,)` to tensors with one row a record: a Tensor, a Ragged, or a dict of them.

        Return `Prepared(values, present)` where more than the column's nulls is missing (unreadable files,
        unknown ids). Must not depend on which other rows are in the column.
        """
        raise NotImplementedError(f"encoder '{self.type}' has no prepare()")

    def build(self) -> None:
        """Create the layers, all of them: called once, after `fit` or `restore`, before the optimizer exists.

        `self.input_dim` is then the last dimension of what `prepare` returns when that is a float tensor.
        By default makes `self.project`, a linear layer from there to `output_dim`.
        """
        if self.input_dim is not None:
            self.project = nn.Linear(self.input_dim, self.output_dim)

    def forward(self, values: Any) -> Tensor:
        """Rows of what `prepare` returned, `(batch, ...)`, to `(batch, output_dim)` float."""
        return self.project(values)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """(texts, dim) in the space of what `prepare` returns; called where `joint`."""
        raise NotImplementedError(f"encoder '{self.type}' has no embed_texts()")

    def saved_params(self) -> dict[str, Any]:
        """The options that a saved encoder is made with again, as JSON: without those that its state and weights replace."""
        return self.params.model_dump(mode="json")

    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON values and Arrow arrays, enough for `restore`."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""

    def encode_column(self, column: pa.Array | pa.ChunkedArray) -> Prepared:
        """`prepare`, with the presence mask worked out where the encoder left it to the column's nulls."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        made = self.prepare(column)
        if not isinstance(made, Prepared):
            present = torch.from_numpy(column.is_valid().to_numpy(zero_copy_only=False).copy())
            if isinstance(made, Ragged):
                present &= made.lengths > 0
            made = Prepared(made, present)
        values = made.values
        if isinstance(values, Tensor) and values.is_floating_point() and values.dim() > 1:
            self.input_dim = values.shape[-1]
        return made


class HistoryEncoder(Encoder):
    """Encodes what a user did before, in vectors of the item tower: a feature of users that differs from moment to moment.

    It is prepared like any other, from lists of `anyrec.data.histories.EVENT`, with the values of `anyrec.core.windows.Events`.
    """

    group = "history"
    window: int | None
    """Interactions looked back on; None for one that reads no windows, and so has no `states`."""
    ordered: bool
    """Whether what happened at the very time of a target is known to it, where it stands before it in the file."""
    mask_share: float | None
    """Share of interactions hidden in training and predicted from both sides; None where each is from those before."""
    item_dim: int
    """Width of the item tower's vectors, set by the frame before `build`."""
    by_shares: bool = False
    """Whether `states` shares its rows out to threads itself, by `anyrec.core.parallel`."""

    def states(self, windows: PackedSequences, items: Tensor) -> Tensor:
        """windows: (rows, length); items: (items, item_dim) -> (rows, length, output_dim), the user as it was at each token."""
        raise NotImplementedError(f"encoder '{self.type}' has no states()")

    def before(self, batch: Batch, values: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        """The users as they were before each of the batch's positives, (positives, output_dim), and where anything is known of them.

        values: what `prepare` returned, all rows; items: (items, item_dim), which `batch.windows` names.
        """
        assert batch.windows is not None and batch.read is not None
        states = self.states(batch.windows, items).flatten(0, 1)
        return states[batch.read.clamp(min=0)], batch.read >= 0

    def forward(self, values: Any, items: Tensor | None = None) -> Tensor:
        """values: the histories of a batch of users; items: (items, item_dim) -> (batch, output_dim), the users as they are now."""
        raise NotImplementedError(f"encoder '{self.type}' has no forward()")


class Fusion(nn.Module):
    """Joins the feature vectors of one entity into one vector.

    Subclasses implement `fuse`; absent features have been replaced by learned stand-ins before it is called, so
    nothing an absent feature held can reach the output.
    """

    type: ClassVar[str]
    penalty: Tensor | None = None
    """A loss of the fusion's own, weighted, of its last forward in training; the training loop adds it to the step's."""

    class Params(Params):
        pass

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        """names: the features, in the order of the tensors' second dimension; dim: of each; output_dim: of the result."""
        super().__init__()
        self.names = list(names)
        self.dim = dim
        self.output_dim = output_dim
        self.params: Any = params if params is not None else type(self).Params()
        self.missing = nn.Parameter(torch.randn(len(self.names), dim) * 0.02)

    def fill(self, features: Tensor, present: Tensor) -> Tensor:
        """features: (batch, features, dim) with each absent one replaced by its learned vector."""
        missing = self.missing.to(features.dtype)
        if not present.is_cuda:  # a look costs little here, and the few that are absent less than a pass over all
            rows, places = (~present).nonzero(as_tuple=True)
            if not len(rows):
                return features
            if len(rows) * 4 < present.numel():
                return features.index_put((rows, places), missing.index_select(0, places))
        return torch.where(present.unsqueeze(-1), features, missing)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """features: (batch, features, dim) float; present: (batch, features) bool -> (batch, output_dim)."""
        return self.fuse(self.fill(features, present), present)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """features: (batch, features, dim), filled; present: (batch, features) -> (batch, output_dim)."""
        raise NotImplementedError(f"fusion '{self.type}' has no fuse()")

    def take_penalty(self) -> Tensor | float:
        """`penalty`, once: 0 where there is none."""
        penalty, self.penalty = self.penalty, None
        return 0.0 if penalty is None else penalty


Fields = tuple[Sequence[str], Sequence[str]]
"""Names of the feature vectors of the user and of the item."""


class Interaction(nn.Module):
    """Scores users against items: the one scoring function of training, evaluation and inference."""

    type: ClassVar[str]
    factorised: ClassVar[bool] = False
    """True when score(u, i) is the dot product of `user_vectors(u)` and `item_vectors(i)`: such items can be indexed."""
    reads: ClassVar[Literal["vectors", "tokens"]] = "vectors"
    """`vectors`: the towers' outputs (batch, dim); `tokens`: their feature vectors before fusion (batch, features, dim)."""

    class Params(Params):
        pass

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        """fields: the names of the user's and of the item's feature vectors, in order; given where `reads` is "tokens"."""
        super().__init__()
        self.dim = dim
        self.params: Any = params if params is not None else type(self).Params()
        self.fields = fields

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Match scores (batch, items).

        users: (batch, ...). items: (items, ...) shared by all users, or (batch, items, ...) each user's own;
        `...` is `dim`, or `features, dim` where `reads` is "tokens".
        """
        raise NotImplementedError(f"interaction '{self.type}' has no score()")

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        """Compute the part of the scores that depends on the items only, once for all requests (if `reads` is "tokens").

        Args:
            items: (..., features, dim), the first feature vectors of each item, in the order of `fields`; the others may depend on
                the request.

        Returns:
            Tensors (..., width), one row for each item; by default the feature vectors themselves.
        """
        return (items.flatten(-2),)

    def score_terms(self, users: Tensor, terms: Sequence[Tensor], rest: Tensor) -> Tensor:
        """Match scores (batch, items), equal to those of `score` within rounding.

        Args:
            users: (batch, features, dim).
            terms: What `item_terms` returned, (batch, items, width) each.
            rest: (batch, items, features, dim), the items' feature vectors that `item_terms` was not given.
        """
        return self.score(users, torch.cat([terms[0].unflatten(-1, (-1, self.dim)), rest], 2))

    @property
    def pair_dim(self) -> int:
        """Width of what `pair` gives."""
        return 3 * self.dim

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        """users, items: (batch, dim) -> (batch, pair_dim), what the heads beside the match score read."""
        return torch.cat([users, items, users * items], -1)

    def user_vectors(self, users: Tensor) -> Tensor:
        """(batch, dim) -> (batch, dim) in the space where the dot product is the score (only if `factorised`)."""
        return users

    def item_vectors(self, items: Tensor) -> Tensor:
        """(items, dim) -> (items, dim) in the space where the dot product is the score (only if `factorised`)."""
        return items


class Head(nn.Module):
    """Predicts something beside the match score (interaction type, rating) from a user-item pair."""

    type: ClassVar[str]
    target: ClassVar[str]
    """The interactions' column it learns: `interaction_type`, `rating`, `label`, ..."""

    class Params(Params):
        weight: float = Field(default=1.0, ge=0, le=1e6)

    def __init__(self, dim: int, params: BaseModel | None = None):
        super().__init__()
        self.dim = dim
        self.params: Any = params if params is not None else type(self).Params()

    def fit(self, column: pa.Array) -> None:
        """Learn the classes or the scale from the training interactions' column."""

    def build(self) -> None:
        """Create the layers: called once, after `fit` or `restore`."""

    def targets(self, column: pa.Array) -> Prepared:
        """The column as target tensors, with a mask of which interactions have one."""
        raise NotImplementedError(f"head '{self.type}' has no targets()")

    def forward(self, pair: Tensor) -> Tensor:
        """pair: (batch, pair_dim of the interaction) -> the prediction, (batch, ...)."""
        raise NotImplementedError(f"head '{self.type}' has no forward()")

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction: (batch, ...), target: (batch,) -> (batch,) loss of each."""
        raise NotImplementedError(f"head '{self.type}' has no loss()")

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""


class Loss(nn.Module):
    """Compares the scores of positives with those of their negatives."""

    type: ClassVar[str]
    corrected: ClassVar[bool] = False
    """True when negatives' scores arrive with the logQ correction: less the log of how often each is drawn."""
    temperature: float = 1.0
    """Scores are divided by it, before the correction."""
    all_items: ClassVar[bool] = False
    """True when the negatives are all other items of the catalogue (full softmax), not a sample."""

    class Params(Params):
        pass

    def __init__(self, params: BaseModel | None = None):
        super().__init__()
        self.params: Any = params if params is not None else type(self).Params()

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        """The weighted mean loss: sum(weight * loss) / sum(weight).

        positive: (batch,) scores. negative: (batch, negatives) scores. valid: (batch, negatives) bool, False where
        a negative must not count (None: all count). weight: (batch,) of each positive (None: all 1).
        A row with no valid negative adds zero (ranking losses) or its positive term alone (pointwise ones).
        """
        raise NotImplementedError(f"loss '{self.type}' has no forward()")


class History(NamedTuple):
    """The training positives as a classical model reads them.

    matrix: (users, items) csr_matrix of float32, 1 for each distinct pair. users, items: (pairs,) rows, by user then item;
    days: (pairs,) float64, when each pair last happened, in days, or None without timestamps.
    item_table: the items' features, one row an item. seed: for any randomness.
    """

    matrix: Any
    users: np.ndarray
    items: np.ndarray
    days: np.ndarray | None
    item_table: pa.Table
    seed: int


class Classical:
    """A model of who interacted with what that is fitted at once, without the training loop."""

    type: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """What the data must have for it: "timestamps", "content" (texts or categories of items)."""
    personal: ClassVar[bool] = True
    """Whether its scores depend on the user; those without a history are then given the popular items instead."""
    by_history: ClassVar[bool] = False
    """Whether `score` reads the users' own history alone, and so scores users who were not in training."""
    baseline: ClassVar[bool] = True
    """Whether it is measured beside every model unasked."""
    most_items: ClassVar[int | None] = None
    """The catalogue past which it is not fitted as a baseline unasked."""

    class Params(Params):
        pass

    def __init__(self, params: BaseModel | None = None):
        self.params: Any = params if params is not None else type(self).Params()

    def fit(self, history: History) -> None:
        """Raises MissingDependency where a library it needs is not installed."""
        raise NotImplementedError(f"model '{self.type}' has no fit()")

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        """Scores (batch, items) float32 of the users in `rows: (batch,)`; matrix: (batch, items) csr, their own history."""
        raise NotImplementedError(f"model '{self.type}' has no score()")

    def similar(self, rows: np.ndarray) -> np.ndarray | None:
        """(batch, items) how like each other item is to those in `rows`; None where the model has no such notion."""
        return None

    def state(self) -> dict[str, np.ndarray]:
        """What `fit` learned, as named arrays."""
        raise NotImplementedError(f"model '{self.type}' has no state()")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        raise NotImplementedError(f"model '{self.type}' has no restore()")


MASK_VALUE = 1e30
"""Taken from the score of what must not count."""


class Negatives(NamedTuple):
    """A batch's negatives.

    items: (groups, negatives) item rows, int64. The batch is cut into `groups` equal runs, each sharing its negatives:
        with 1 group they are shared by all, with as many as rows each positive has its own.
    valid: (batch, negatives) bool; False where the item is a positive of that user. None when all are valid.
    log_q: (groups or batch, negatives, or 1 for either): log of the expected number of times that an item is drawn. A corrected
        score, s - log_q, makes the sum of exponentials over the negatives an unbiased estimate of that over all items.
        The positive, which is always there, needs none (Khrylchenko et al., Correcting the LogQ Correction, 2025).
    """

    items: Tensor
    valid: Tensor | None
    log_q: Tensor | None


class Sampler:
    """Draws negatives for a whole batch at once, on the device."""

    type: ClassVar[str]
    group_size: int = 1
    """Batches come in multiples of it."""

    class Params(Params):
        pass

    def __init__(self, positives: Any, params: BaseModel | None = None):
        """positives: `anyrec.data.positives.Positives` of the training interactions."""
        self.positives = positives
        self.params: Any = params if params is not None else type(self).Params()

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        """users, items: (batch,) rows of the positives. ratio: negatives wanted for each."""
        raise NotImplementedError(f"sampler '{self.type}' has no sample()")


KINDS: dict[str, type] = {
    "encoder": Encoder,
    "fusion": Fusion,
    "interaction": Interaction,
    "head": Head,
    "loss": Loss,
    "sampler": Sampler,
    "classical": Classical,
}
