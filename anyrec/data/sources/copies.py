"""Temporary copies of what can be read only once: standard input, web servers, topics."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from anyrec.core.outputs import output_errors
from anyrec.core.scratch import scratch_folder


class Copy:
    """A temporary file that is removed with the last reference to this object, or when the process ends.

    Attributes:
        path: The file.
    """

    def __init__(self) -> None:
        number, self.path = tempfile.mkstemp(prefix="anyrec-", dir=scratch_folder())
        os.close(number)
        weakref.finalize(self, os.unlink, self.path)

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Yield the file, to append to it. Raises OutputError if the disk is full."""
        with output_errors(Path(self.path)), open(self.path, "ab") as file:
            yield file

    def open(self) -> pa.NativeFile:
        """Return a new stream of its bytes."""
        return pa.OSFile(self.path)
