"""The processes that train one model together, and what they exchange. One process alone exchanges nothing.

A launcher (torchrun, Ray) starts the processes and sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. All exchange is
made of `all_gather`, `all_reduce` and `broadcast`, which both gloo (processors) and NCCL (GPUs) have. Processes of one
machine exchange tensors on processors through shared memory instead of gloo. All processes call the same methods in the
same order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported once processes have joined (as torch's optimizers do), it would keep their group
from torch import Tensor

from anyrec.core.errors import AnyrecError, ReportedElsewhere
from anyrec.core.shared_memory import SharedMemory, shared_memory
from anyrec.core.types import AutogradContext, Json

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables that a launcher sets."""
WAIT = timedelta(days=365)
"""How long a process waits for the others: an evaluation on one of them can take hours. The end of a process is noticed
at once all the same, since its connections close."""

LOST = ("gloo", "NCCL", "onnection")
"""Words of torch's errors if another process has ended."""


@dataclass(frozen=True)
class Processes:
    """The processes of this run, as one of them sees them. The methods exchange tensors between all of them.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        memory: What processes of one machine exchange tensors through; None if they are on several machines.

    Example:
        with joined() as processes:
            own = processes.share(len(rows))
            lengths = processes.shares(len(rows))
            vectors = processes.join(encode(rows[own]), lengths)  # (rows, dim), with gradients
    """

    rank: int = 0
    size: int = 1
    memory: SharedMemory | None = field(default=None, compare=False, repr=False)

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the part of `count` rows that this process has: the shares are contiguous and differ by 1 at most."""
        return slice(*self.bounds(count)[self.rank : self.rank + 2])

    def bounds(self, count: int) -> list[int]:
        """Return the first of `count` rows that each process has, and then `count`."""
        return [count * rank // self.size for rank in range(self.size + 1)]

    def shares(self, count: int) -> list[int]:
        """Return the number of rows that each process has of `count`."""
        return [high - low for low, high in pairwise(self.bounds(count))]

    def sum(self, values: Tensor) -> Tensor:
        """Replace `values`, of the same shape in all processes, by their sum, in place, and return them."""
        if self.memory is not None and values.device.type == "cpu":
            self.memory.sum(values)
        elif not self.alone:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor, source: int = 0) -> Tensor:
        """Replace `values` by those of one process, in place, and return them."""
        if self.memory is not None and values.device.type == "cpu":
            self.memory.broadcast(values, source)
        elif not self.alone:
            dist.broadcast(values, source)
        return values

    def gather(self, part: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Concatenate the rows of all processes, in the order of their ranks. No gradient flows through it.

        Args:
            part: (rows, ...); the number of rows can differ between the processes.
            lengths: The number of rows in each process, if all know it; otherwise it is exchanged first.

        Returns:
            (rows of all processes, ...).
        """
        if self.alone:
            return part
        if lengths is None:
            lengths = self.gather(torch.tensor([len(part)], device=part.device), [1] * self.size).tolist()
        if self.memory is not None and part.device.type == "cpu":
            return self.memory.gather(part.detach().contiguous(), lengths)
        longest = max(lengths)
        whole = part.new_empty(self.size, longest, *part.shape[1:])
        own = part.detach().contiguous()
        if len(own) < longest:
            own = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
        if own.numel():
            dist.all_gather(list(whole.unbind()), own)
        if min(lengths) == longest:
            return whole.flatten(0, 1)
        return torch.cat([rows[:length] for rows, length in zip(whole, lengths, strict=True)])

    def join(self, part: Tensor, lengths: Sequence[int]) -> Tensor:
        """Concatenate the rows of all processes, with gradients: each gets the sum of all processes' gradients.

        Args:
            part: (rows, ...).
            lengths: The number of rows in each process, such as `shares(count)`.

        Returns:
            (rows of all processes, ...).
        """
        return part if self.alone else _Join.apply(part, self, lengths)

    def agree(self, value: Json, source: int = 0) -> Json:
        """Return the JSON value of one process, in every process."""
        if self.alone:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
        length = self.broadcast(torch.tensor([len(text)], device=device), source)
        text = text if self.rank == source else text.new_empty(int(length))
        return json.loads(bytes(self.broadcast(text, source).cpu().numpy()))

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.agree(None)


ALONE = Processes()


class _Join(torch.autograd.Function):
    """Concatenates the shares of all processes. The gradients are summed over the processes, and each takes its rows.

    There is no reduce_scatter in gloo; the sum of the whole gradient takes twice its traffic.
    """

    @staticmethod
    def forward(ctx: AutogradContext, part: Tensor, processes: Processes, lengths: Sequence[int]) -> Tensor:
        start = sum(lengths[: processes.rank])
        ctx.own = processes, slice(start, start + lengths[processes.rank])
        return processes.gather(part, lengths)

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor, None, None]:
        processes, own = ctx.own
        return processes.sum(gradients[0].contiguous().clone())[own], None, None


_memory: SharedMemory | None = None


def processes() -> Processes:
    """Return the processes that `joined` has joined, or one alone."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size(), _memory)
    return ALONE


@contextmanager
def _sharing() -> Iterator[Processes]:
    """Let the joined processes exchange tensors through shared memory within the block, if they can."""
    global _memory
    together = processes()
    if together.alone or together.memory is not None or dist.get_backend() == "nccl":
        yield together
        return
    with shared_memory(together.rank, together.size) as _memory:
        try:
            yield processes()
        finally:
            _memory = None


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that a launcher has started, within the block. Without a launcher, this process is alone.

    Tensors on processors are exchanged by gloo, tensors on GPUs by NCCL; each process uses the GPU of its LOCAL_RANK.
    If the processes are joined already (by Ray, or by the program), they stay so after the block.

    Raises:
        AnyrecError: If a variable of the launcher is missing, there are fewer GPUs than processes, or the processes do
            not find each other.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1 or (dist.is_available() and dist.is_initialized()):
        with _sharing() as together:
            yield together
        return
    missing = [name for name in LAUNCHED if not os.environ.get(name)]
    if missing:
        hint = "Start the processes with torchrun, or unset WORLD_SIZE."
        raise AnyrecError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set. {hint}")
    backend = "gloo"
    if torch.cuda.is_available():
        place, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if place >= gpus:
            hint = f"Start at most {gpus} on this machine, or set CUDA_VISIBLE_DEVICES= to train on its processors."
            raise AnyrecError(f"this machine has fewer GPUs ({gpus}) than processes, and each needs its own. {hint}")
        torch.cuda.set_device(place)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=WAIT))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        raise AnyrecError(f"the processes of this training do not find each other: {error}") from None
    try:
        with _sharing() as together:
            yield together
    except BaseException as error:
        raise _reported_once(error, store) from error
    finally:
        dist.destroy_process_group()


def _reported_once(error: BaseException, store: dist.Store) -> BaseException:
    """Return the error if this process is the first to fail, which prints it; the others end without a message.

    Args:
        error: The error of this process, for example that a connection was closed, since another process has failed.
        store: What all processes can write to.
    """
    try:
        first = store.add("failed", 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        first = False
    if not first:
        return ReportedElsewhere(getattr(error, "exit_code", 1))
    if isinstance(error, RuntimeError) and any(word in str(error) for word in LOST):
        return AnyrecError(
            "another process of this training has ended. `--resume` goes on from the last finished epoch."
        )
    return error
