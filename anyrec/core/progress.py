"""One progress bar for all long work; nothing where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    def advance(self, amount: float = 1, text: str | None = None) -> None:
        """Move on by `amount` of the total, perhaps with another text."""


class Silent:
    def advance(self, amount: float = 1, text: str | None = None) -> None:
        pass


@contextmanager
def progress_bar(description: str, total: float, shown: bool = True) -> Iterator[Bar]:
    """A bar of `total` steps on standard error."""
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
