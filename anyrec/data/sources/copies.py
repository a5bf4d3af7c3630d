"""Temporary copies of what can be read only once: standard input, web servers, topics."""

from __future__ import annotations

import os
import tempfile
import weakref

import pyarrow as pa

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

    def open(self) -> pa.NativeFile:
        """Return a new stream of its bytes."""
        return pa.OSFile(self.path)
