"""Random masks of rows that are divided between processes: each process cuts its rows from the mask of all rows.

All processes draw the same numbers, so a step does not depend on how many there are. Within `part_of`, the rows of
tensors are some of a larger number of rows. Outside of it, masks are drawn as torch draws them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from anyrec.core.types import Dispatched

_here = threading.local()


class Part(NamedTuple):
    """Some of the rows of a step.

    Attributes:
        own: Which rows: a slice, or (rows,) int64.
        total: Number of all rows.
        ids: (total,) int64, the record of each row; None if the rows are distinct.
    """

    own: slice | Tensor
    total: int
    ids: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of own rows."""
        return len(self.own) if isinstance(self.own, Tensor) else self.own.stop - self.own.start


def current() -> Part | None:
    """Return the part that this thread computes; None if it computes all rows."""
    return getattr(_here, "part", None)


@contextmanager
def as_part(part: Part | None) -> Iterator[None]:
    """Say that the rows within the block are a part; None: they are all rows."""
    before = current()
    _here.part = part
    try:
        yield
    finally:
        _here.part = before


def part_of(own: slice | Tensor | None, total: int, ids: Tensor | None = None) -> AbstractContextManager[None]:
    """Say that the rows within the block are `own` of `total` rows; None: they are all. See `Part`."""
    return as_part(None if own is None else Part(own, total, ids))


def within(rows: range) -> AbstractContextManager[None]:
    """Say that the rows within the block are some of the present part, which is a slice or all rows."""
    part = current()
    if part is None:
        return nullcontext()
    assert isinstance(part.own, slice)
    return part_of(slice(part.own.start + rows.start, part.own.start + rows.stop), part.total)


def among(distinct: Tensor) -> AbstractContextManager[None]:
    """Say that the rows within the block are the distinct records of the present part, ascending: (records,) int64."""
    part = current()
    if part is None or part.ids is None:
        return nullcontext()
    every = torch.unique(part.ids)
    return part_of(torch.searchsorted(every, distinct), len(every))


def of_all(count: int) -> int:
    """Return how many values all rows have, if those of the present part have `count`."""
    part = current()
    return count if part is None or not part.rows else count // part.rows * part.total


def drawn(shape: Sequence[int], draw: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Return the part of a random tensor that belongs to the present part.

    Args:
        shape: Shape of the result; its first dimension has the rows, or a multiple of them, row by row.
        draw: Returns the random tensor of a shape.
    """
    part = current()
    if part is None:
        return draw(shape)
    each = shape[0] // part.rows if part.rows else 1
    if each * part.rows != shape[0]:
        raise ValueError(f"a mask of {shape[0]} rows is drawn in a part of {part.rows} rows")
    with as_part(None):
        whole = draw((part.total * each, *shape[1:]))
    return (whole if each == 1 else whole.unflatten(0, (part.total, each)))[part.own].reshape(tuple(shape))


def like(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an empty tensor of a shape whose dimensions lie in memory in the order of those of `values`.

    torch fills a tensor with random numbers in this order.
    """
    order = sorted(range(values.dim()), key=lambda dim: -values.stride(dim))
    return values.new_empty([shape[dim] for dim in order]).permute([order.index(dim) for dim in range(len(order))])


def dropout(values: Tensor, share: float, training: bool) -> Tensor:
    """Return `functional.dropout` of `values: (rows, ...)`."""
    if current() is None or not training or not share:
        return functional.dropout(values, share, training)
    keep = drawn(values.shape, lambda shape: like(values, shape).bernoulli_(1 - share))
    return values * keep.div_(1 - share)


class RowDropout(nn.Dropout):
    """`nn.Dropout` for values (rows, ...), whose mask does not depend on how rows are divided between processes.

    Example:
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), RowDropout(0.1), nn.Linear(32, 1))
    """

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
OWN = ("anyrec.", "torch.nn.")
"""Modules whose random numbers are known: those of this project, and those of torch that `_draws` lists."""


def draws_itself(model: nn.Module) -> bool:
    """Return whether a module of the model may draw masks without `drawn`: torch's own dropout, or foreign code."""
    return any(_draws(module) for module in model.modules())


def _draws(module: nn.Module) -> bool:
    if isinstance(module, RowDropout):
        return False
    if isinstance(module, DROPOUTS):
        return module.p > 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return module.dropout > 0
    return not type(module).__module__.startswith(OWN)


class ForeignMasks(TorchDispatchMode):
    """Lets code that knows nothing of parts draw its masks with `drawn`, by replacing torch's random operations.

    A mask whose first dimension is no multiple of the rows of the part stays as it is drawn.
    """

    def __torch_dispatch__(
        self, func: Dispatched, types: Dispatched, args: Dispatched = (), kwargs: Dispatched = None
    ) -> Dispatched:
        part, kwargs = current(), kwargs or {}
        if part is None or not part.rows or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func is torch.ops.aten.bernoulli_.float and _fits(args[0].shape, part):
            noise = args[0]
            return noise.copy_(drawn(noise.shape, lambda shape: func(like(noise, shape), *args[1:])))
        if func in (torch.ops.aten.rand.default, torch.ops.aten.randn.default) and _fits(args[0], part):
            return drawn(args[0], lambda shape: func(list(shape), **kwargs))
        if func in (torch.ops.aten.rand_like.default, torch.ops.aten.randn_like.default) and _fits(args[0].shape, part):
            return drawn(args[0].shape, lambda shape: func(like(args[0], shape), **kwargs))
        if func is torch.ops.aten.native_dropout.default and args[2] and _fits(args[0].shape, part):
            values, share = args[0], args[1]
            keep = drawn(values.shape, lambda shape: like(values, shape).bernoulli_(1 - share))
            return values * keep / (1 - share), keep.bool()
        return func(*args, **kwargs)


def _fits(shape: Sequence[int], part: Part) -> bool:
    return len(shape) > 0 and shape[0] % part.rows == 0
