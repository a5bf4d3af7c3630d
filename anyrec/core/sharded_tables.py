"""Tables of vectors whose rows are divided over processes, each of which trains its own rows.

A process has the state of the optimizer for its own rows only. The rows of a look-up are exchanged, and their gradients
return the same way: traffic grows with the distinct rows of a step, not with the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.processes import Processes, processes
from anyrec.core.ragged import Padded, Ragged
from anyrec.core.scratch import Scratch, scratch_folder
from anyrec.core.types import AutogradContext

DRAWN_AT_A_TIME = 1 << 22
"""Random numbers of a block while a table is created. It is a multiple of 16: torch draws in groups of 16."""
MOVED_AT_A_TIME = 64 << 20
"""Bytes of a block of rows while a table is moved to one process."""


class ShardedTable(nn.Embedding):
    """An embedding table with the rows of one process.

    Args:
        part: (own rows, dim) the rows of this process.
        rows: Number of rows of the whole table.
        sparse: Whether gradients are sparse.
        processes: The processes. Each has the rows `share(rows)`.

    Attributes:
        num_embeddings: Number of rows of the whole table.
        bounds: (processes + 1,) the first row of each process, and the end.
        whole: (rows, dim) the whole table while one process computes alone (`whole_tables`), else None.
    """

    def __init__(self, part: Tensor, rows: int, sparse: bool, processes: Processes):
        super().__init__(len(part), part.shape[1], sparse=sparse, _weight=part)
        self.num_embeddings, self.processes = rows, processes
        self.bounds = processes.bounds(rows)
        self.whole: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Look up rows; all processes call this together, each with its own rows.

        Args:
            input: int64 rows of the whole table.

        Returns:
            (*input.shape, dim).
        """
        if self.whole is not None:
            return functional.embedding(input, self.whole, max_norm=self.max_norm)
        found = _Rows.apply(self.weight, input.flatten(), self.bounds, self.processes, self.sparse, self.max_norm)
        return found.view(*input.shape, self.embedding_dim)

    def blocks(self) -> Iterator[Tensor]:
        """Yield (some rows, dim), all rows of the table in blocks, in every process. All call this together."""
        for owner, rows in self._moves():
            yield self.processes.broadcast(self._own(rows).clone() if self._has(owner) else self._empty(rows), owner)

    def take_back(self) -> None:
        """Take the rows of `whole`, which process 0 has changed. All processes call this together."""
        for owner, rows in self._moves():
            block = self._empty(rows) if self.whole is None else self.whole[rows.start : rows.stop].clone()
            self.processes.broadcast(block)
            if self._has(owner):
                self._own(rows).copy_(block)

    def _moves(self) -> Iterator[tuple[int, range]]:
        """Yield the owner and the rows of each block."""
        size = max(1, MOVED_AT_A_TIME // (self.weight.element_size() * self.embedding_dim))
        for owner, (low, high) in enumerate(pairwise(self.bounds)):
            for start in range(low, high, size):
                yield owner, range(start, min(start + size, high))

    def _has(self, owner: int) -> bool:
        return owner == self.processes.rank

    def _own(self, rows: range) -> Tensor:
        """Return some of the own rows, in place."""
        low = self.bounds[self.processes.rank]
        return self.weight.detach()[rows.start - low : rows.stop - low]

    def _empty(self, rows: range) -> Tensor:
        return self.weight.new_empty(len(rows), self.embedding_dim)


def make_table(rows: int, dim: int, *, std: float, sparse: bool = False, shard_rows: int | None = None) -> nn.Embedding:
    """Create an embedding table with normally distributed vectors.

    Args:
        rows: Number of rows.
        dim: Size of a vector.
        std: Standard deviation of the values.
        sparse: Whether gradients are sparse.
        shard_rows: Number of rows from which on the rows are divided over the processes that train together; None to
            keep the table whole. The values are the same in either case.
    """
    together = processes()
    if together.alone or shard_rows is None or rows < shard_rows:
        table = nn.Embedding(rows, dim, sparse=sparse)
        nn.init.normal_(table.weight, std=std)
        return table
    own = together.share(rows)
    part = torch.empty(own.stop - own.start, dim)
    for _ in range(2):  # as above: the constructor of nn.Embedding draws, and then normal_
        for low, drawn in _drawn(rows * dim, std):
            high = low + len(drawn)
            begin, end = max(low, own.start * dim), min(high, own.stop * dim)
            if begin < end:
                part.view(-1)[begin - own.start * dim : end - own.start * dim] = drawn[begin - low : end - low]
    return ShardedTable(part, rows, sparse, together)


def _drawn(count: int, std: float) -> Iterator[tuple[int, Tensor]]:
    """Yield `torch.empty(count).normal_(std=std)` in blocks, each with the place of its first number."""
    low = 0
    while low < count:
        size = DRAWN_AT_A_TIME if count - low >= DRAWN_AT_A_TIME + 16 else count - low  # torch draws the last 16 again
        yield low, torch.empty(size).normal_(std=std)
        low += size


def sharded_tables(model: nn.Module) -> list[ShardedTable]:
    """Return the tables of a model whose rows are divided over processes."""
    return [module for module in model.modules() if isinstance(module, ShardedTable)]


@contextmanager
def whole_tables(model: nn.Module) -> Iterator[None]:
    """Let process 0 use the model alone within the block: its look-ups read copies of the whole tables, in files.

    All processes enter the block together. No table is in the memory of a process as a whole, except on a GPU.
    """
    tables = sharded_tables(model)
    for table in tables:
        table.whole = _whole(table)
    try:
        yield
        for table in tables:  # not after an error here, of which the other processes do not know
            if table.max_norm is not None:  # a look-up shortens vectors
                table.take_back()
    finally:
        for table in tables:
            table.whole = None


def join_tables(model: nn.Module) -> None:
    """Replace the sharded tables of process 0 by whole ones, in files. All processes call this together."""
    for parent in list(model.modules()):
        for name, table in list(parent.named_children()):
            if isinstance(table, ShardedTable):
                weight, options = _whole(table), {"sparse": table.sparse, "max_norm": table.max_norm}
                if weight is not None:
                    setattr(parent, name, nn.Embedding.from_pretrained(weight, freeze=False, **options))


def _whole(table: ShardedTable) -> Tensor | None:
    """Return a whole table, (rows, dim), memory-mapped from a temporary file, in process 0; None in the others."""
    blocks = table.blocks()
    if not table.processes.first:
        for _ in blocks:
            pass
        return None
    parts = ({"rows": block.cpu().numpy()} for block in blocks)
    return torch.from_numpy(Scratch(scratch_folder()).keep_parts(parts)["rows"]).to(table.weight.device)


def mean_of_rows(table: nn.Embedding, rows: Ragged | Padded) -> Tensor:
    """Return the mean of some rows of a table for each bag.

    Args:
        table: The table.
        rows: The rows of each bag, int64.

    Returns:
        (bags, dim); zero for an empty bag.
    """
    if not isinstance(table, ShardedTable):
        return rows.bag(table.weight, sparse=table.sparse)
    return rows.mean(table(rows.values))


def lookup(part: Tensor, rows: Tensor, bounds: Sequence[int], processes: Processes) -> Tensor:
    """Return rows of a matrix whose rows are divided over processes, with gradients. All processes call this together.

    Args:
        part: (own rows, dim) the rows of this process, `bounds[rank]` to `bounds[rank + 1]`.
        rows: (n,) int64 rows of the whole matrix.
        bounds: (processes + 1,) the first row of each process, and the end.
        processes: The processes.

    Returns:
        (n, dim).
    """
    return _Rows.apply(part, rows, bounds, processes, False, None)


class _Rows(torch.autograd.Function):
    """Rows of a matrix that are exchanged between its owners and the processes that need them."""

    @staticmethod
    def forward(
        ctx: AutogradContext,
        part: Tensor,
        rows: Tensor,
        bounds: Sequence[int],
        processes: Processes,
        sparse: bool,
        max_norm: float | None,
    ) -> Tensor:
        low, high = bounds[processes.rank], bounds[processes.rank + 1]
        inside = (rows >= low) & (rows < high)
        asked, place = torch.unique(rows[~inside], return_inverse=True)  # of other processes
        lengths = processes.gather(torch.tensor([len(asked)], device=rows.device), [1] * processes.size).tolist()
        requests = processes.gather(asked, lengths) if any(lengths) else asked
        moved = torch.unique(requests)  # rows that a process needs of another, ascending
        ends = torch.searchsorted(moved, torch.tensor(bounds, device=rows.device)).tolist()
        given = moved[ends[processes.rank] : ends[processes.rank + 1]] - low
        own = rows[inside] - low
        if max_norm is not None:
            with torch.no_grad():
                torch.embedding_renorm_(part.detach(), torch.cat([own, given]), max_norm, 2.0)
        answers = _answers(part[given], ends, processes)  # (moved, dim)
        found = part[own]
        if len(asked):
            found = part.new_empty(len(rows), part.shape[1]).index_put_((inside,), found)
            found[~inside] = answers[torch.searchsorted(moved, asked)][place]
        ctx.save_for_backward(inside, own, given, asked, place, requests, moved)
        ctx.known = part.shape, lengths, slice(*ends[processes.rank : processes.rank + 2]), low, processes, sparse
        return found

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        inside, own, given, asked, place, requests, moved = ctx.saved_tensors
        shape, lengths, answered, low, processes, sparse = ctx.known
        of_others = gradient.new_zeros(len(asked), shape[1]).index_add_(0, place, gradient[~inside])
        if processes.size * max(lengths) < 2 * len(moved):  # see `_answers`
            mine = (requests >= low) & (requests < low + shape[0])
            given, returned = requests[mine] - low, processes.gather(of_others, lengths)[mine]
        elif len(moved):
            summed = gradient.new_zeros(len(moved), shape[1])
            returned = processes.sum(summed.index_copy_(0, torch.searchsorted(moved, asked), of_others))[answered]
        else:
            returned = of_others
        of_own = gradient if len(own) == len(gradient) else gradient[inside]
        if sparse:
            rows, values = (torch.cat([own, given]), torch.cat([of_own, returned])) if len(given) else (own, of_own)
            result = torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
        else:
            result = gradient.new_zeros(shape).index_add_(0, own, of_own).index_add_(0, given, returned)
        return result, None, None, None, None, None


def _answers(given: Tensor, ends: list[int], processes: Processes) -> Tensor:
    """Return the rows that all processes give, one process after another.

    A ring of p processes moves (p - 1) times the longest part through each of them if it gathers the parts, and
    2 (p - 1) / p times the whole if it sums them. Parts of equal length are gathered in half the traffic.

    Args:
        given: (own rows, dim).
        ends: (processes + 1,) where the rows of each process begin, and the end.
        processes: The processes.
    """
    counts = [high - low for low, high in pairwise(ends)]
    if processes.size * max(counts) < 2 * ends[-1]:
        return processes.gather(given, counts)
    whole = given.new_zeros(ends[-1], given.shape[1])
    whole[ends[processes.rank] : ends[processes.rank + 1]] = given
    return processes.sum(whole) if ends[-1] else whole
