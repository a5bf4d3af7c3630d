"""Collecting faults: the first 20 of each kind, and the number of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from anyrec.core.errors import SHOWN_PER_KIND, DataError, Fault


class Faults:
    """Collects faults: the first 20 of each kind, and the number of each kind.

    Attributes:
        keys: How many JSON keys the records and contexts have, which shows whether a key was doubled in the text.
        shown: The faults that the error lists.
        counts: How many faults of each kind there are.
    """

    def __init__(self) -> None:
        self.keys = 0
        self.shown: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, where: str, what: str, hint: str = "") -> None:
        """Add one fault. The arguments are those of `Fault`."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN_PER_KIND:
            self.shown.append(Fault(where, what, hint, kind))

    def add_rows(
        self, kind: str, rows: Sequence[int] | np.ndarray, make: Callable[[int], tuple[str, str, str]]
    ) -> None:
        """Add one fault for each row.

        Args:
            kind: The kind of the faults.
            rows: (faulty,) The rows.
            make: Returns where, what and the hint for a row; called only for rows that are shown.
        """
        if not len(rows):
            return
        room = max(0, SHOWN_PER_KIND - self.counts[kind])
        self.counts[kind] += len(rows)
        self.shown += [Fault(*make(int(row)), kind) for row in rows[:room]]

    def add_all(self, faults: Iterable[Fault]) -> None:
        """Add faults that were made elsewhere."""
        for fault in faults:
            self.add(fault.kind, fault.where, fault.what, fault.hint)

    def extend(self, others: Faults) -> None:
        """Add the faults that others have collected."""
        self.shown += others.shown
        self.counts += others.counts

    def error(self) -> DataError:
        """Return the error that reports all faults found so far."""
        return DataError(self.shown, dict(self.counts))

    def raise_any(self) -> None:
        """Raise a DataError with every fault if there is one."""
        if self:
            raise self.error()

    def __bool__(self) -> bool:
        return bool(self.counts)
