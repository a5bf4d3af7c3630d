"""What the data doctor and the interpretation of a dataset report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["problem", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One fact about a dataset that the user should know.

    Attributes:
        level: problem (the results would be wrong), warning (they may be wrong) or note (for information).
        kind: A stable name for this sort of finding.
        text: What was found, with its figures.
        advice: What to do about it.
    """

    level: Level
    kind: str
    text: str
    advice: str


def count(number: int, name: str) -> str:
    """Return a number with its noun: '1 user', '2,000 users'."""
    return f"{number:,} {name}" + ("" if number == 1 else "s")
