"""Runs a function in several processes that are joined by gloo."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.multiprocessing import start_processes

from anyrec.core import shared_memory
from anyrec.core.processes import Processes, joined
from tests.forked import serve


def run(check: Callable[..., None], size: int, *arguments: Any, network: bool = False) -> None:
    """Call `check(processes, *arguments)` in each of `size` new processes with one thread. It must be importable.

    An error in any process is raised here.

    Args:
        network: The processes share no memory, as if they were on several machines.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve()
    start_processes(_enter, (check, size, port, arguments, network), nprocs=size, start_method="forkserver")


def _enter(
    rank: int, check: Callable[..., None], size: int, port: int, arguments: tuple[Any, ...], network: bool
) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    folder = Path("/nowhere") if network else shared_memory.FOLDER
    with patch.object(shared_memory, "FOLDER", folder), joined() as processes:
        assert processes == Processes(rank, size)
        assert (processes.memory is None) == (not folder.is_dir())
        check(processes, *arguments)
    left = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in left if "gloo" in name], "threads of a group that still run at the exit abort it"
