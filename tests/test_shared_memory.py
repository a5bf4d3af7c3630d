"""Processes of one machine exchange tensors through shared memory, and others through the network."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from anyrec.core import shared_memory as shared
from anyrec.core.processes import Processes
from anyrec.core.shared_memory import shared_memory
from tests.gloo import run

pytestmark = pytest.mark.skipif(not shared.FOLDER.is_dir(), reason="this system has no files in memory")


def blocks(processes: Processes) -> None:
    """Exchange tensors that are larger than what can be passed at once, and compare them with those of gloo."""
    assert processes.memory is not None
    over_network = Processes(processes.rank, processes.size)
    draw = torch.Generator().manual_seed(processes.rank)
    with patch.object(shared, "BYTES", 64):
        for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.int64):
            for rows in (0, 1, 7, 8, 31):
                own = torch.randint(100, (rows, 3), generator=draw).to(dtype)
                assert torch.equal(processes.sum(own.clone()), over_network.sum(own.clone()))
                assert torch.equal(processes.broadcast(own.clone(), 1), over_network.broadcast(own.clone(), 1))
                part = own[: rows // (1 + processes.rank)]
                assert torch.equal(processes.gather(part), over_network.gather(part))
    assert processes.gather(torch.ones(2, 0)).shape == (2 * processes.size, 0)
    own = torch.randn(1000, generator=draw)
    sums = processes.gather(processes.sum(own)[None])
    assert len(torch.unique(sums, dim=0)) == 1, "all processes have the same sum, bit by bit"


def not_everywhere(processes: Processes, folder: Path) -> None:
    """Nothing is shared if one process sees other files, if there is no memory, or if there are too many processes."""
    nowhere = Path("/nowhere") if processes.rank == 1 else folder
    with patch.object(shared, "FOLDER", folder):
        for name, value in (("FOLDER", nowhere), ("MOST", 2), ("BYTES", 1 << 50)):
            with patch.object(shared, name, value), shared_memory(processes.rank, processes.size) as memory:
                assert memory is None, name
        with shared_memory(processes.rank, processes.size) as memory:
            assert memory is not None
    dist.barrier()
    assert not list(folder.iterdir()), "files are left"


def one_ends(processes: Processes) -> None:
    """One process is killed; the others notice it in the next exchange."""
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="Connection closed by another process"):
        for _ in range(2):
            processes.sum(torch.ones(1))
    os._exit(0)  # gloo waits for the process that has ended


def test_tensors_larger_than_the_memory_are_exchanged_in_blocks() -> None:
    run(blocks, 3)


def test_nothing_is_shared_if_a_process_cannot_take_part() -> None:
    with TemporaryDirectory(dir=shared.FOLDER) as folder:
        run(not_everywhere, 3, Path(folder))


def test_the_end_of_a_process_is_an_error_in_the_others() -> None:
    with pytest.raises(Exception, match="SIGKILL"):
        run(one_ends, 3)
