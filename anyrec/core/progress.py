"""The progress bar of all long operations. Without a terminal nothing is shown.

A worker of a cluster has no terminal: `bars_elsewhere` sends its bars to the process that has one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

Report: TypeAlias = Callable[[str, float, float], None]
"""Called with the text of a bar, its total, and how much of it is done."""
EVERY = 0.2
"""Seconds between two reports of a bar to another process, at least."""
_report: Report | None = None


class Bar(Protocol):
    """A progress bar."""

    def advance(self, amount: float = 1, text: str | None = None) -> None:
        """Advance the bar.

        Args:
            amount: Share of the total that is done.
            text: Description from now on; None shows the first one.
        """


class Silent:
    """A progress bar that shows nothing."""

    def advance(self, amount: float = 1, text: str | None = None) -> None:
        pass


@contextmanager
def progress_bar(description: str, total: float, shown: bool = True) -> Iterator[Bar]:
    """Show a progress bar on standard error until the block ends.

    Args:
        description: Text before the bar.
        total: Number of steps.
        shown: Whether to show a bar at all.
    """
    if shown and _report is not None:
        yield _Reported(_report, description, total)
        return
    if not shown or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)

        class Shown:
            def advance(self, amount: float = 1, text: str | None = None) -> None:
                progress.update(task, advance=amount, description=text or description)

        yield Shown()


@contextmanager
def bars_elsewhere(report: Report) -> Iterator[None]:
    """Send all progress bars of this process to `report` within the block."""
    global _report
    _report = report
    try:
        yield
    finally:
        _report = None


class _Reported:
    """A progress bar that another process shows."""

    def __init__(self, report: Report, description: str, total: float):
        self.report, self.description, self.total = report, description, total
        self.done, self.reported = 0.0, 0.0

    def advance(self, amount: float = 1, text: str | None = None) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.reported >= EVERY or self.done >= self.total:
            self.reported = now
            self.report(text or self.description, self.total, self.done)
