"""What processes exchange in each step besides vectors: gradients, and rows of tables whose norm is limited."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anyrec.core.processes import Processes
from anyrec.core.sharded_tables import ShardedTable

BUCKET = 1 << 23
"""Values that are summed at once, at most: 32 MB of float32."""
LARGE = 1 << 17
"""Values of a gradient that is summed alone: to copy it would take longer than another exchange."""


class GradientSum:
    """Replaces the gradients of all processes by their sum, which is the same in all of them, bit by bit.

    A parameter that has a gradient in no process keeps none: an optimizer does not move it.

    Args:
        processes: The processes.
        dense: Parameters with dense gradients.
        sparse: Parameters with sparse gradients. Only their rows are exchanged.
    """

    def __init__(self, processes: Processes, dense: Sequence[nn.Parameter], sparse: Sequence[nn.Parameter]):
        self.processes, self.dense, self.sparse = processes, dense, sparse
        self.buckets = [] if processes.alone else _buckets(dense)
        # Kept between the steps, since the first use of new memory takes as long as the exchange.
        self.flat = [
            one[0].new_empty(sum(part.numel() for part in one)) if len(one) > 1 else None for one in self.buckets
        ]

    def take(self, fills: bool) -> None:
        """Sum the gradients of a step. fills: whether gradients of zero may be those of a row that does not count."""
        if self.buckets:
            has = [one.grad is not None and (not fills or bool(one.grad.any())) for one in self.dense]
            counts = self.processes.sum(torch.tensor(has, dtype=torch.int64, device=self.dense[0].device)).tolist()
            for one, count in zip(self.dense, counts, strict=True):
                one.grad = None if not count else torch.zeros_like(one) if one.grad is None else one.grad.contiguous()
            for bucket, flat in zip(self.buckets, self.flat, strict=True):
                self._sum([one for one in bucket if one.grad is not None], flat)
        if self.sparse and not self.processes.alone:
            _sum_sparse(self.processes, self.sparse)

    def _sum(self, parameters: Sequence[nn.Parameter], flat: Tensor | None) -> None:
        """Sum the gradients of parameters of one type. flat: memory that they are copied to; None for a large one."""
        gradients = [one.grad for one in parameters if one.grad is not None]
        if flat is None or len(gradients) < 2:
            for one in gradients:
                self.processes.sum(one)
            return
        sizes = [one.numel() for one in gradients]
        flat = torch.cat([one.view(-1) for one in gradients], out=flat[: sum(sizes)])
        for one, total in zip(parameters, self.processes.sum(flat).split(sizes), strict=True):
            one.grad = total.view_as(one)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return the parameters in runs of one type with at most BUCKET values; a large one is alone."""
    found: list[list[nn.Parameter]] = []
    size = 0
    for one in sorted(parameters, key=lambda one: one.numel() > LARGE):
        if not found or found[-1][-1].dtype != one.dtype or one.numel() > LARGE or size + one.numel() > BUCKET:
            found.append([])
            size = 0
        found[-1].append(one)
        size += one.numel()
    return found


def _sum_sparse(processes: Processes, parameters: Sequence[nn.Parameter]) -> None:
    """Give each parameter the rows of all processes, in the order of their ranks."""
    parts = [None if one.grad is None else one.grad.to_sparse(1).coalesce() for one in parameters]
    lengths = torch.tensor([[-1 if part is None else part.values().shape[0] for part in parts]])
    every = processes.gather(lengths.to(parameters[0].device), [1] * processes.size).T.tolist()
    for one, part, counts in zip(parameters, parts, every, strict=True):
        if max(counts) < 0:
            continue
        rows = torch.empty(0, dtype=torch.int64, device=one.device) if part is None else part.indices()[0]
        values = one.new_empty(0, *one.shape[1:]) if part is None else part.values()
        counts = [max(0, count) for count in counts]
        rows, values = processes.gather(rows, counts), processes.gather(values, counts)
        one.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), values, one.shape, check_invariants=False).coalesce()


def clip_gradients(
    processes: Processes, parameters: Sequence[nn.Parameter], divided: Sequence[nn.Parameter], limit: float
) -> None:
    """Scale all gradients so that their norm is at most `limit`.

    Args:
        processes: The processes.
        parameters: All parameters.
        divided: Those of them of which each process has other rows.
        limit: The largest norm.
    """
    if not divided:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        return
    own = {id(one) for one in divided}
    common = [one.grad for one in parameters if one.grad is not None and id(one) not in own]
    rows = torch.nn.utils.get_total_norm([one.grad for one in divided if one.grad is not None])
    squares = processes.sum(rows.to(divided[0].device).square().reshape(1))
    norm = (torch.nn.utils.get_total_norm(common).to(squares.device).square() + squares[0]).sqrt()
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)


class LimitedNorms:
    """Keeps tables with a norm limit equal in all processes. torch shortens a row when it is looked up.

    Args:
        processes: The processes.
        model: The model.
    """

    def __init__(self, processes: Processes, model: nn.Module):
        self.processes = processes
        tables = [one for one in model.modules() if isinstance(one, nn.Embedding) and one.max_norm is not None]
        self.tables = [] if processes.alone else [one for one in tables if not isinstance(one, ShardedTable)]
        self.seen: list[list[Tensor]] = [[] for _ in self.tables]
        self.hooks = [
            table.register_forward_pre_hook(lambda _, ids, seen=seen: seen.append(ids[0].flatten()))
            for table, seen in zip(self.tables, self.seen, strict=True)
        ]

    @torch.no_grad()
    def agree(self) -> None:
        """Shorten the rows that any process has looked up since the last call."""
        for table, seen in zip(self.tables, self.seen, strict=True):
            assert table.max_norm is not None
            none = torch.empty(0, dtype=torch.int64, device=table.weight.device)
            ids = torch.unique(self.processes.gather(torch.unique(torch.cat([none, *seen]))))
            torch.embedding_renorm_(table.weight, ids, table.max_norm, table.norm_type)
            seen.clear()

    def copy_first(self) -> None:
        """Take the tables of the first process, whose look-ups may have shortened rows while it was alone."""
        for table, seen in zip(self.tables, self.seen, strict=True):
            self.processes.broadcast(table.weight.detach())
            seen.clear()

    def remove(self) -> None:
        """Stop watching the tables."""
        for hook in self.hooks:
            hook.remove()
