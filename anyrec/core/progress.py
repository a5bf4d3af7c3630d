"""The progress bar of all long operations. Without a terminal nothing is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


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
