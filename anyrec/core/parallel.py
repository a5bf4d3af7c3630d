"""Rows distributed over Python threads, each of which runs torch on one thread. Gradients are supported.

If each operation takes about a millisecond, OpenMP's threads wait for each other after every operation. Threads that
compute their own rows from start to end do not wait (measurements in benchmarks/RESULTS.md).
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

from anyrec.core.row_masks import as_part, current, within
from anyrec.core.types import AutogradContext

Share = TypeVar("Share")
Found = TypeVar("Found")
_here = threading.local()
MOST = 8
"""Maximum number of threads. Python starts the operations of all threads one after another, so that more threads would
wait for each other. Two threads were measured."""


def shares_of(rows: int, device: torch.device) -> list[range]:
    """Cut rows into equal shares, one for each thread. On a GPU there is one share.

    Args:
        rows: Number of rows.
        device: Device that computes.

    Returns:
        At least one range; an empty one if there are no rows.
    """
    size = rows if device.type != "cpu" else math.ceil(rows / _threads())
    return [range(low, min(low + size, rows)) for low in range(0, rows, max(1, size))] or [range(0)]


def on_threads(run: Callable[[Share], Found], shares: Sequence[Share]) -> list[Found]:
    """Call `run` for each share in its own thread. Within it torch uses one thread, and the caller's gradient and
    autocast modes.

    Returns:
        The results, in the order of the shares.
    """
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
def one_thread_elsewhere() -> Iterator[None]:
    """Let torch use one thread within the block, except in `on_threads` and `by_shares`, which keep their number of
    threads.

    Use it if nearly all work is done in shares: after each operation OpenMP's threads keep the cores busy by waiting.
    """
    _here.threads = before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _here.threads = None
        torch.set_num_threads(before)


def generator() -> torch.Generator | None:
    """Return the random generator of the current share, so that results do not depend on the order of threads.

    None, which means torch's own generator, outside of `by_shares`.
    """
    return getattr(_here, "generator", None)


def by_shares(
    module: nn.Module,
    run: Callable[[Share, Tensor], Tensor],
    shares: Sequence[Share],
    values: Tensor,
    rows: Sequence[range],
) -> Tensor:
    """Call `run(share, values)` for each share in its own thread, and concatenate the results.

    The same seed and number of shares give the same result, bit for bit. If rows are divided between processes as well,
    the masks of the shares are cut from those of all rows, so their number has no effect on them.

    Args:
        module: The module whose parameters `run` uses.
        run: Returns (rows of the share, ...). It must draw random numbers from `generator()`.
        shares: What to pass to `run`.
        values: A tensor that `run` uses. Gradients flow to it and to the parameters of `module`, once.
        rows: The rows of each share.

    Returns:
        (rows of all shares, ...).
    """
    if len(shares) == 1:
        return run(shares[0], values)
    return _Shares.apply(run, shares, rows, module.training, values, *module.parameters())


class _Shares(torch.autograd.Function):
    """Runs the shares, each with its own autograd graph. Their gradients are summed in the order of the shares."""

    @staticmethod
    def forward(
        ctx: AutogradContext,
        run: Any,
        shares: Sequence[Any],
        rows: Sequence[range],
        training: bool,
        values: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        """Run all shares. training: whether random numbers are drawn; if not, torch's generator is not advanced."""

        part = current()

        def share(one: tuple[Any, range, torch.Generator]) -> tuple[Tensor, Tensor]:
            leaf = values.detach().requires_grad_(ctx.needs_input_grad[4])
            with torch.enable_grad(), _drawing(one[2]), as_part(part), within(one[1]):
                return leaf, run(one[0], leaf)

        generators = _generators(len(shares), training)
        ctx.found = on_threads(share, list(zip(shares, rows, generators, strict=True)))
        ctx.parameters = parameters
        if training and part is not None:  # all shares have drawn the same numbers
            torch.set_rng_state(generators[0].get_state())
        return torch.cat([result.detach() for _, result in ctx.found])

    @staticmethod
    def backward(ctx: AutogradContext, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        wanted = [place for place, needed in enumerate(ctx.needs_input_grad[4:]) if needed]

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
        return None, None, None, None, *gradients


def _generators(shares: int, training: bool) -> list[torch.Generator]:
    """Return the random generator of each share. Rows that are divided between processes all draw the same numbers."""
    if training and current() is not None:
        state = torch.get_rng_state()
        return [torch.Generator().set_state(state) for _ in range(shares)]
    seeds = torch.randint(2**62, (shares,)).tolist() if training else [0] * shares
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@contextmanager
def _drawing(numbers: torch.Generator) -> Iterator[None]:
    """Set what `generator` returns in this thread within the block."""
    _here.generator = numbers
    try:
        yield
    finally:
        _here.generator = None


def _threads() -> int:
    """The number of threads for shares."""
    return min(getattr(_here, "threads", None) or torch.get_num_threads(), MOST)
