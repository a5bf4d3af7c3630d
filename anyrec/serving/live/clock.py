"""The time of the log."""

from __future__ import annotations

import math
import time


class Clock:
    """The time, which is always later than before, also if the clock of the machine is set back: logs have an order.

    Attributes:
        latest: The last time, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.latest = -math.inf

    def now(self) -> float:
        """Return the time."""
        self.latest = max(time.time(), math.nextafter(self.latest, math.inf))
        return self.latest
