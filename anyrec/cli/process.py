"""Runs a command as a process: turns errors and signals into messages and exit codes, and handles terminal encodings.

Exit codes: 0 success; 1 an error; 2 bad input; 3 a missing package; 128 + N stopped by signal N (130 SIGINT,
143 SIGTERM).
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from anyrec.cli.errors import DEBUG, internal_error
from anyrec.cli.options import check_arguments, err
from anyrec.core.errors import AnyrecError, OutputError, ReportedElsewhere
from anyrec.core.runtime import own_process

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME = 1.0
"""Seconds within which a second signal counts as a repetition: a terminal sends it to the process and to its group."""


class Stopped(BaseException):
    """A signal requests the end of the process. No subclass of Exception, so `except Exception` does not catch it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def run_command(program: Callable[[], Any]) -> None:
    """Run a command that has the process to itself: its settings, signals and standard streams.

    Args:
        program: Called without arguments.

    Raises:
        SystemExit: With the exit code, unless the command ends without an error.
    """
    own_process()
    escape_what_the_terminal_cannot_show()
    try:
        with _signals_stop():
            try:
                check_arguments(sys.argv[1:])
                program()
            finally:
                sys.stdout.flush()
    except ReportedElsewhere as error:
        raise SystemExit(error.exit_code) from None
    except AnyrecError as error:
        _end("\n".join([str(error), *_notes(error)]), error.exit_code)
    except Stopped as stop:
        _end(" ".join([f"stopped by {signal.Signals(stop.number).name}.", *_notes(stop)]), 128 + stop.number)
    except BrokenPipeError:
        _discard_standard_output()
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:
            _discard_standard_output()
        _end(str(_output_error(error)), OutputError.exit_code)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _end(internal_error(error, sys.argv), 1)


@contextmanager
def launched() -> Iterator[bool]:
    """Join the processes that a launcher has started to train together; yield whether this is the first one."""
    if (os.environ.get("WORLD_SIZE") or "1") == "1":
        yield True
        return
    from anyrec.core.processes import joined

    with joined() as processes:
        yield processes.first


def escape_what_the_terminal_cannot_show() -> None:
    r"""Print characters that the terminal's encoding does not have as \uXXXX, which is valid in JSON strings."""
    codecs.register_error("anyrec.escape", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="anyrec.escape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True)), error.end


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Raise Stopped at a signal, so that unfinished files are removed. Ignored signals (nohup) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -SAME

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= SAME:
            raise Stopped(number)

    older = {number: signal.getsignal(number) for number in SIGNALS}
    caught = [number for number in SIGNALS if older[number] is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, older[number])


def _output_error(error: OSError) -> AnyrecError:
    """Return the OutputError for an error of the operating system. If it names no file, it is about standard output."""
    from anyrec.core.errors import Fault
    from anyrec.core.outputs import write_fault

    path = "/dev/stdout" if error.filename is None else str(error.filename)
    fault = write_fault(error, Path(path)) or Fault(path, f"{error.strerror or error}.", kind="system")
    return OutputError(fault)


def _discard_standard_output() -> None:
    """Redirect standard output to the null device: flushing its buffer at the end of the process would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _notes(error: BaseException) -> list[str]:
    """Return the notes added to an error with `add_note`: what the user can do next."""
    return getattr(error, "__notes__", [])


def _end(message: str, code: int) -> None:
    err.print(message, markup=False)
    raise SystemExit(code) from None
