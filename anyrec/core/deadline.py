"""A time limit for a whole exchange over sockets. Timeouts of sockets limit single reads only."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Deadline:
    """Shuts down the watched sockets when the time is over, so that a read in progress fails. Closes them when the
    block ends.

    Args:
        seconds: The time limit.

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
        """Return the seconds left.

        Raises:
            TimeoutError: No time is left.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"more than {self.seconds:g} s")
        return left

    def over(self) -> bool:
        """Return True if the time is over."""
        return time.monotonic() >= self.ends

    def watch(self, connected: socket.socket) -> None:
        """Shut down a socket when the time is over."""
        self._sockets.append(connected)
        if self.over():
            self._shut()

    def _shut(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
