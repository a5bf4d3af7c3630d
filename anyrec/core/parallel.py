"""Rows shared out to threads of Python, each with one of torch; gradients and all.

Many operations of a millisecond leave OpenMP's threads waiting for each other after each; a share of the rows on a thread of
its own waits for no other (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Share = TypeVar("Share")
Found = TypeVar("Found")
_here = threading.local()
MOST = 8
"""Shares at once: Python begins the operations of all threads one at a time, and with more they would wait for that. Two were measured."""


def shares_of(rows: int, device: torch.device) -> list[range]:
    """Rows in as many equal shares as there are threads; all in one on a GPU."""
    size = rows if device.type != "cpu" else math.ceil(rows / _threads())
    return [range(low, min(low + size, rows)) for low in range(0, rows, max(1, size))] or [range(0)]


def on_threads(run: Callable[[Share], Found], shares: Sequence[Share]) -> list[Found]:
    """`run` of each share on a thread of its own, where torch does not split its operations further; gradients and autocast as
    they are for the caller."""
    threads, before = min(_threads(), len(shares)), torch.get_num_threads()
    if threads == 1:
        return [run(share) for share in shares]
    gradients = torch.is_grad_enabled()
    precision = ("cpu", torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu"))

    def alone(share: Share) -> Found:
        torch.set_num_threads(1)
        with torch.set_grad_enabled(gradients), torch.autocast(*precision):
            return run(share)

    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, shares))
    finally:
        torch.set_num_threads(before)


@contextmanager
def nothing_else_shared() -> Iterator[None]:
    """Within, all but what is shared out here is done by one thread. Where that is little, OpenMP's threads are better not woken:
    for a while after each operation they keep the cores busy with waiting."""
    _here.threads = before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _here.threads = None
        torch.set_num_threads(before)


def generator() -> torch.Generator | None:
    """What a share of `by_shares` draws from, so that it does not matter which is first; outside of one, torch's own."""
    return getattr(_here, "generator", None)


def by_shares(
    module: nn.Module, run: Callable[[Share, Tensor], Tensor], shares: Sequence[Share], values: Tensor
) -> Tensor:
    """`run(share, values)` of every share, each on a thread of its own, end to end: (rows of all shares, ...).

    run: uses the parameters of `module` and `values`, to all of which gradients flow, once; what it draws at random it draws from
    `generator()`. The same seed and number of shares give the same result, bit for bit.
    """
    if len(shares) == 1:
        return run(shares[0], values)
    return _Shares.apply(run, shares, module.training, values, *module.parameters())


class _Shares(torch.autograd.Function):
    """Each share keeps a graph of its own; the gradients of all are added up in the order of the shares."""

    @staticmethod
    def forward(
        ctx: Any, run: Any, shares: Sequence[Any], training: bool, values: Tensor, *parameters: Tensor
    ) -> Tensor:
        """training: whether anything is drawn at random; else torch's generator is left as it is."""

        def share(one: tuple[Any, int]) -> tuple[Tensor, Tensor]:
            leaf = values.detach().requires_grad_(ctx.needs_input_grad[3])
            with torch.enable_grad(), _seeded(one[1]):
                return leaf, run(one[0], leaf)

        seeds = torch.randint(2**62, (len(shares),)).tolist() if training else [0] * len(shares)
        ctx.found, ctx.parameters = on_threads(share, list(zip(shares, seeds, strict=True))), parameters
        return torch.cat([result.detach() for _, result in ctx.found])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        wanted = [place for place, needed in enumerate(ctx.needs_input_grad[3:]) if needed]

        def share(one: tuple[tuple[Tensor, Tensor], Tensor]) -> tuple[Tensor | None, ...]:
            (leaf, result), part = one
            inputs = [leaf, *ctx.parameters]
            return torch.autograd.grad(result, [inputs[place] for place in wanted], part, allow_unused=True)

        parts = gradient.split([len(result) for _, result in ctx.found])
        found = on_threads(share, list(zip(ctx.found, parts, strict=True)))
        ctx.found = None
        gradients: list[Tensor | None] = [None] * (1 + len(ctx.parameters))
        for place, of_shares in zip(wanted, zip(*found, strict=True), strict=True):
            there = [part for part in of_shares if part is not None]
            gradients[place] = reduce(torch.add, there) if there else None
        return None, None, None, *gradients


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    _here.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _here.generator = None


def _threads() -> int:
    return min(getattr(_here, "threads", None) or torch.get_num_threads(), MOST)
