"""A total time limit for a conversation over sockets, whose own timeouts bound single reads only."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Deadline:
    """Shuts the watched sockets down when the time is over, so that a read in progress ends with an error; closes them at the end.

    Example:
        with Deadline(20) as deadline:
            connection.timeout = deadline.left()
            connection.connect()
            deadline.watch(connection.sock)
    """

    def __init__(self, seconds: float):
        self.seconds, self.ends = seconds, time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        for one in self._sockets:  # `close` would wait for a response that still holds the socket after an error
            number = one.detach()
            if number >= 0:
                socket.close(number)

    def left(self) -> float:
        """Return the seconds left. Raises TimeoutError if there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"more than {self.seconds:g} s")
        return left

    def over(self) -> bool:
        return time.monotonic() >= self.ends

    def watch(self, connected: socket.socket) -> None:
        self._sockets.append(connected)
        if self.over():
            self._shut()

    def _shut(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
