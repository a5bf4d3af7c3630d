"""Memory that all processes of a machine map, through which they exchange tensors.

gloo passes a tensor through a socket, in pieces for each of which a thread is woken. Here a process writes into its own
part of the memory, waits for the others, and reads their parts: a sum of 2.5 MB over two processes takes 0.2 ms instead
of 1.5 ms.
"""

from __future__ import annotations

import mmap
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

FOLDER = Path("/dev/shm")
"""Files in it are in memory (Linux). Without it nothing is shared."""
BYTES = 4 << 20
"""What a process can pass at once. Larger tensors are exchanged in blocks."""
MOST = 8
"""Maximum number of processes: in a sum, each of them reads what all others have."""


class SharedMemory:
    """Memory that all processes of one machine map. All of them call the same methods in the same order.

    Two exchanges in turn use different halves. A process that writes into one of them again has met the others in the
    exchange between, so that they have read what was there.

    Args:
        rank: Number of this process, from 0.
        memory: (2, processes, BYTES) uint8.
        others: Connections to the other processes.
    """

    def __init__(self, rank: int, memory: Tensor, others: Sequence[socket.socket]):
        self.rank, self.size = rank, memory.shape[1]
        self.memory, self.others, self.half = memory, others, 0

    @torch.no_grad()
    def sum(self, values: Tensor) -> None:
        """Replace a contiguous tensor by the sum over the processes, in the order of their ranks."""
        for block in values.view(-1).split(BYTES // values.element_size()):
            first, second, *more = self._exchange(block, [len(block)] * self.size)
            torch.add(first, second, out=block)
            for part in more:
                block += part

    @torch.no_grad()
    def broadcast(self, values: Tensor, source: int) -> None:
        """Replace a contiguous tensor by that of one process."""
        for block in values.view(-1).split(BYTES // values.element_size()):
            counts = [len(block) * (rank == source) for rank in range(self.size)]
            block.copy_(self._exchange(block[: counts[self.rank]], counts)[source])

    @torch.no_grad()
    def gather(self, part: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (rows of all processes, ...), the rows of each process in the order of the ranks.

        Args:
            part: (rows, ...), contiguous.
            lengths: Number of rows in each process.
        """
        whole = part.new_empty(sum(lengths), *part.shape[1:])
        width, block = part.shape[1:].numel(), BYTES // part.element_size()
        targets = whole.view(-1).split([length * width for length in lengths])
        for start in range(0, max(lengths) * width, block):
            places = slice(start, start + block)
            found = self._exchange(part.view(-1)[places], [len(target[places]) for target in targets])
            for target, values in zip(targets, found, strict=True):
                target[places] = values
        return whole

    def _exchange(self, own: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Return what each process passes, which it may change at the next call but one.

        Args:
            own: (count,) of at most BYTES.
            counts: Number of values of each process.
        """
        self.half = 1 - self.half
        parts = [
            part[: count * own.element_size()].view(own.dtype)
            for part, count in zip(self.memory[self.half], counts, strict=True)
        ]
        parts[self.rank].copy_(own)
        try:
            for other in self.others:
                other.send(b".")
            if all(other.recv(1) for other in self.others):
                return parts
        except OSError:
            pass
        raise RuntimeError("Connection closed by another process")  # as gloo says it


@contextmanager
def shared_memory(rank: int, size: int) -> Iterator[SharedMemory | None]:
    """Share memory within the block; None if the processes are on several machines, or too many, or no memory is left.

    Args:
        rank: Number of this process, from 0.
        size: Number of processes, which torch.distributed has joined. All of them enter the block together.
    """
    folder = FOLDER / f"anyrec-{_least(secrets.randbits(62)):x}"  # the same in all processes
    with ExitStack() as connections:
        yield _opened(folder, rank, size, connections) if _least(FOLDER.is_dir() and size <= MOST) else None


def _opened(folder: Path, rank: int, size: int, connections: ExitStack) -> SharedMemory | None:
    """Map memory that the first process makes, and connect all processes.

    Args:
        folder: The files by which they find each other, which are removed again.
        rank: Number of this process.
        size: Number of processes.
        connections: Closes the connections.
    """
    length, memory = 2 * size * BYTES, None
    try:
        with suppress(OSError):
            if rank == 0:
                folder.mkdir(mode=0o700)
                with (folder / "memory").open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, length)
        _least(True)  # the first process has made it
        listener = connections.enter_context(socket.socket(socket.AF_UNIX))
        with suppress(OSError, ValueError):  # there is no file, or it is too short
            with (folder / "memory").open("r+b") as file:
                mapped = mmap.mmap(file.fileno(), length)
            listener.bind(str(folder / str(rank)))
            listener.listen(size)
            memory = torch.frombuffer(mapped, dtype=torch.uint8).view(2, size, BYTES)
        if not _least(memory is not None) or memory is None:
            return None
        others = [connections.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(rank)]
        for number, other in enumerate(others):
            other.connect(str(folder / str(number)))
        others += [connections.enter_context(listener.accept()[0]) for _ in range(rank + 1, size)]
        _least(True)  # all are connected
        return SharedMemory(rank, memory, others)
    finally:
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _least(number: int) -> int:
    """Return the smallest of the numbers of all processes."""
    found = torch.tensor([number], dtype=torch.int64)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)
