"""Memory and traffic of a training on several processes: formulas, and a simulation that counts both.

    python benchmarks/scale_simulation.py             # counts bytes with 1, 2 and 4 processes and compares the formulas
    python benchmarks/scale_simulation.py --paper     # 1 B interactions, 100 M users, 10 M items

docs/scale.md explains the formulas. tests/test_scale.py runs the simulation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from anyrec.classifier.losses import FullSoftmax
from anyrec.core.config import OptimizerConfig
from anyrec.core.processes import Processes, processes
from anyrec.core.sharded_tables import make_table
from anyrec.data import positives as positives_module
from anyrec.data.positives import Positives
from anyrec.training.optimizers import Optimizer


@dataclass(frozen=True)
class Scale:
    """A training with sharded tables of users and items.

    Attributes:
        processes: P, number of processes.
        users: U, rows of the table of users.
        items: I, rows of the table of items.
        interactions: N, training positives.
        batch: B, positives of a step, of all processes together.
        drawn: n, items that are drawn for each positive; 0 with in-batch negatives.
        dim: d, size of a vector.
        bytes: f, bytes of a number.
        dense: D, numbers in the parameters that each process has whole.
    """

    processes: int
    users: int
    items: int
    interactions: int
    batch: int
    drawn: int = 0
    dim: int = 64
    bytes: int = 4
    dense: int = 0

    @property
    def others(self) -> float:
        """(P - 1) / P, the fraction of rows that another process has."""
        return (self.processes - 1) / self.processes

    # Memory of one process, in bytes

    def tables(self) -> float:
        """Rows of both tables and their two moments: 3 f d (U + I) / P."""
        return 3 * self.bytes * self.dim * (self.users + self.items) / self.processes

    def dense_parameters(self) -> float:
        """Parameters that are not sharded, with gradient and two moments: 4 f D."""
        return 4 * self.bytes * self.dense

    def data(self) -> float:
        """Positives, the users' items for the masks, the order of an epoch, and rows of ids: 48 N + 25 (U + I).

        Each process has all of it; with data.memory_limit what grows with N is mapped from the disk.
        """
        return 48 * self.interactions + 25 * (self.users + self.items)

    def slice_vectors(self) -> float:
        """Item vectors of one slice: f d I / P. A step of the full softmax holds several such matrices."""
        return self.bytes * self.dim * self.items / self.processes

    # Traffic of one process in a step, in bytes received

    def table_traffic(self) -> float:
        """Rows of the step that are not its own, and their gradients, of both tables.

        With in-batch negatives each process reads all B items of the step, otherwise those of its own positives.
        """
        share = self.batch // self.processes
        if self.drawn:
            items = self._rows(self.items, share * (1 + self.drawn))
        else:
            items = self._rows(self.items, self.batch, same=True)
        return self._rows(self.users, share) + items

    def _rows(self, table: int, read: int, same: bool = False) -> float:
        """Look-ups of `read` uniform rows in each process. same: whether all processes read the same rows.

        A = (P - 1) / P distinct(read) rows are asked of others, M rows of all processes are moved. The numbers of rows
        take 8 (P - 1) bytes, row numbers 8 (P - 1) A, vectors f d (P - 1) / P M, and gradients f d min((P - 1) A, 2 (P
        - 1) / P M).
        """
        if self.processes == 1:
            return 0.0
        asked = self.others * distinct(table, read)
        moved = distinct(table, read if same else (self.processes - 1) * read)
        back = min((self.processes - 1) * asked, 2 * self.others * moved)
        ids = 8 * (self.processes - 1) * (1 + asked)
        return ids + self.bytes * self.dim * (self.others * moved + back)

    def softmax_traffic(self) -> float:
        """The softmax over all items: (P - 1) / P B (3 f d + 3 f + 16) + 2 f (P - 1) B, and a few numbers."""
        number = self.others * (3 * self.bytes * self.dim + 3 * self.bytes + 16) + 2 * self.bytes * (self.processes - 1)
        return self.batch * number + 24 * (self.processes - 1) + 2 * self.others * self.bytes

    def dense_traffic(self) -> float:
        """Gradients of the parameters that are not sharded: 2 f D (P - 1) / P."""
        return 2 * self.bytes * self.dense * self.others


def distinct(rows: int, draws: float) -> float:
    """Return the expected number of distinct rows in uniform draws: R (1 - (1 - 1 / R) ** draws)."""
    return rows * -math.expm1(draws * math.log1p(-1 / rows)) if rows > 1 else min(rows, draws)


class Found(NamedTuple):
    """Bytes that one process counted: traffic of a step's look-ups and of a softmax, memory of tables and of data."""

    look_ups: float
    softmax: float
    tables: float
    data: float


@contextmanager
def counted(processes: Processes) -> Iterator[list[float]]:
    """Yield a list that gets the bytes that this process receives in each exchange within the block.

    A ring of P processes: a gather passes the parts of all others through each process, a sum 2 (P - 1) / P times its
    tensor, a broadcast the tensor.
    """
    received: list[float] = []
    others = processes.size - 1

    def counting(call: Callable[..., object], factor: float, tensor_at: int) -> Callable[..., object]:
        def exchange(*arguments: object, **options: object) -> object:
            tensor = arguments[tensor_at]
            assert isinstance(tensor, Tensor)
            received.append(factor * tensor.nbytes)
            return call(*arguments, **options)

        return exchange

    calls = {"all_gather": (others, 1), "all_reduce": (2 * others / processes.size, 0), "broadcast": (1, 0)}
    patches = [
        mock.patch.object(dist, name, counting(getattr(dist, name), factor, at)) for name, (factor, at) in calls.items()
    ]
    for patch in patches:
        patch.start()
    try:
        yield received
    finally:
        for patch in patches:
            patch.stop()


def simulate(scale: Scale) -> Found:
    """Take a sampled step and a softmax step with sharded tables in this process, and count bytes.

    All processes call this together; users, items and negatives are drawn uniformly.
    """
    together = processes()
    torch.manual_seed(0)
    users, items = (
        make_table(rows, scale.dim, std=1.0, sparse=True, shard_rows=1) for rows in (scale.users, scale.items)
    )
    model = torch.nn.ModuleList([users, items])
    optimizer = Optimizer(model, OptimizerConfig())
    own = torch.Generator().manual_seed(together.rank)
    batch = scale.batch // together.size
    read = torch.randint(scale.users, (batch,), generator=own)
    targets = torch.randint(scale.items, (batch,), generator=own)
    drawn = torch.randint(scale.items, (batch * scale.drawn,), generator=own)
    seen = torch.cat([targets, drawn]) if scale.drawn else together.gather(targets)
    with counted(together) as look_ups:
        vectors = items(seen)
        (users(read).sum(0) * vectors).sum().backward()
    optimizer.step()
    memory = sum(table.weight.nbytes for table in (users, items))
    memory += sum(value.nbytes for value in optimizer.tensors().values() if value.dim())
    part = together.share(scale.items)
    left, right = torch.randn(batch, scale.dim, requires_grad=True), torch.randn(part.stop - part.start, scale.dim)
    with counted(together) as softmax:
        loss = FullSoftmax().over_slice(
            left, right.requires_grad_(), part.start, targets, torch.arange(batch), no_mask, None, together
        )
        loss.backward()
    return Found(sum(look_ups), sum(softmax), memory, data_bytes(scale))


def data_bytes(scale: Scale) -> int:
    """Return the bytes of the data that each process has, for distinct pairs of users and items."""
    pairs = torch.randperm(scale.users * scale.items)[: scale.interactions]
    rows, order = (pairs // scale.items, pairs % scale.items), torch.randperm(scale.interactions)
    with mock.patch.object(positives_module, "TABLE_BYTES", 0):  # the table of bits is for small data only
        positives = Positives(*rows, scale.users, scale.items)
    columns = [(torch.arange(n), torch.ones(n, dtype=torch.bool)) for n in (scale.users, scale.items)]
    kept = [*rows, order, *columns[0], *columns[1], *(v for v in vars(positives).values() if isinstance(v, Tensor))]
    return sum(tensor.nbytes for tensor in kept)


def no_mask(low: int, high: int, scores: Tensor) -> None:
    """Count all items as negatives."""
    scores.zero_()


SMALL = Scale(processes=1, users=2_000, items=1_500, interactions=30_000, batch=480, dim=16)
"""The training that is simulated, with in-batch negatives and with three drawn ones."""
PAPER = Scale(
    processes=1, users=100_000_000, items=10_000_000, interactions=1_000_000_000, batch=65_536, dense=1_000_000
)
"""The training on paper, with in-batch negatives."""


def compare(together: Processes) -> None:
    """Count the bytes of one process, compare the formulas with them, and print both in process 0.

    Raises:
        AssertionError: If a formula is wrong: look-ups, whose rows are random, by 10 %, others by more than 8 bytes.
    """
    for drawn in (0, 3):
        scale = replace(SMALL, processes=together.size, drawn=drawn)
        wanted = Found(scale.table_traffic(), scale.softmax_traffic(), scale.tables(), scale.data())
        for name, counted_bytes, formula in zip(Found._fields, simulate(scale), wanted, strict=True):
            if together.first and (name == "look_ups" or drawn == 0):
                of = f"{name}, {drawn or 'in-batch'} negatives" if name == "look_ups" else name
                print(f"| {together.size} | {of} | {counted_bytes:,.0f} | {formula:,.0f} |", flush=True)
            bound = 0.1 * formula if name == "look_ups" else 8.0  # bytes: there is one offset more than users
            assert abs(counted_bytes - formula) <= bound, f"{name}: {counted_bytes} bytes counted, {formula} by formula"


def on_paper(rate: float = 50_000, network: float = 1.25e9) -> Iterator[str]:
    """Yield the table of docs/scale.md.

    Args:
        rate: Positives that one core trains on in a second; each process has one.
        network: Bytes that a process receives in a second.
    """
    names = ["processes", "tables and state", "look-ups of a step", "a softmax step", "computing", "network"]
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"
    for size in (1, 4, 16, 64):
        scale = replace(PAPER, processes=size)
        moved = scale.table_traffic() + scale.dense_traffic()
        seconds = scale.interactions / rate / size, scale.interactions / scale.batch * moved / network
        yield (
            f"| {size} | {scale.tables() / 1e9:.1f} GB | {scale.table_traffic() / 1e6:.0f} MB | "
            f"{scale.softmax_traffic() / 1e6:.0f} MB | {seconds[0] / 60:.0f} min | {seconds[1] / 60:.0f} min |"
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="print the training on paper")
    options = parser.parse_args()
    if options.paper:
        print("\n".join(on_paper()))
        return
    from tests.gloo import run

    print("| processes | bytes of one process | counted | formula |\n|---|---|---|---|", flush=True)
    for size in (1, 2, 4):
        run(compare, size, network=True)


if __name__ == "__main__":
    main()
