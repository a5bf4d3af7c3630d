"""Processes that start at once: each is forked from a server that has imported torch and anyrec.

A new interpreter takes about three seconds of processor time for these imports. The server starts with the first
process, has no threads and computes nothing, so a process that is forked from it is like a new one. Tests of how the
interpreter starts (its options, its imports) start it themselves.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ["pytest", "torch.distributed.nn", "anyrec.cli.app", "anyrec.cli.run", "anyrec.recommender"]


def serve() -> None:
    """Start the server, unless it runs."""
    CONTEXT.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests"))))
        forkserver.ensure_running()


def start(function: Callable[..., None], *arguments: Any, **changed: str) -> BaseProcess:
    """Call an importable function in a new process with the folder and the environment of this one.

    Args:
        function: Called with `arguments`, which must be picklable.
        changed: Changed variables of the environment.
    """
    serve()
    process = CONTEXT.Process(target=_enter, args=(os.getcwd(), {**os.environ, **changed}, function, arguments))
    process.start()
    return process


def _enter(folder: str, environment: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def kill(function: Callable[..., None], *arguments: Any, after: float) -> None:
    """Call `function(ready, *arguments)` in a new process, and kill it `after` seconds after it called `ready()`."""
    ready = CONTEXT.Event()
    process = start(function, ready.set, *arguments)
    assert ready.wait(120), "the process has not become ready"
    time.sleep(after)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), "the process has failed before"


def start_program(
    *words: object, folder: Path = ROOT, output: str = os.devnull, errors: str = os.devnull, **changed: str
) -> BaseProcess:
    """Start what `python *words` runs in a folder. It writes to files."""
    return start(_run, [str(word) for word in words], output, errors, str(folder), **changed)


def run_program(*words: object, folder: Path = ROOT, **changed: str) -> tuple[int | None, str, str]:
    """Run what `python *words` runs in a folder; return the exit code and what it wrote to its output and errors."""
    with tempfile.TemporaryDirectory() as place:
        output, errors = f"{place}/output", f"{place}/errors"
        process = start_program(*words, folder=folder, output=output, errors=errors, **changed)
        process.join()
        return process.exitcode, *(Path(path).read_text(encoding="utf-8") for path in (output, errors))


def _run(words: list[str], output: str, errors: str, folder: str) -> None:
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
