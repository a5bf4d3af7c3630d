"""The users and items that a model knows: reading requests by them, and what the users did, now or at a moment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.context import Context
from anyrec.core.errors import Fault, ModelError
from anyrec.data.histories import add_history, history_before
from anyrec.data.ids import Side
from anyrec.data.pairs import Pairs
from anyrec.data.request_history import extend_histories
from anyrec.data.split import PARTS, Part
from anyrec.model.model_data import ModelData
from anyrec.model.records import Records, completed
from anyrec.model.request_reader import Reads, RequestReader, Users


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownRecords(ModelData, ABC):
    """What a model knows of users and items.

    Attributes:
        context: Folder of files, permissions and seed, for encoders.
        seen: The items that each known user interacted with; lists leave them out by default.
        seen_parts: (pairs,) uint8 for the pairs of `seen`: bit n is set if the pair occurs in part n of the split. None
            for a model saved by a version that did not save it.
        history_parts: (events,) int8, the part of the split of each event of `history`.
    """

    context: Context
    seen: Pairs
    seen_parts: np.ndarray | None = None
    history_parts: np.ndarray | None = None

    @abstractmethod
    def reads(self) -> Reads:
        """Return which parts of a request the model reads."""

    # Ids, records and histories

    @cached_property
    def reader(self) -> RequestReader:
        """The reader of this model's requests."""
        return RequestReader(self.config.data, self.dataset, self.context, self.reads())

    @cached_property
    def item_users(self) -> np.ndarray:
        """(items,) int64, how many known users had each item."""
        count = len(self.dataset.items)
        return np.bincount(self.seen.items.astype(np.int64), minlength=count)[:count]

    def request_context(self, root: Path | None = None, strict: bool | None = None) -> Context:
        """Return a context for one request, with its own folder and warnings."""
        return self.reader.request_context(root, strict)

    def read_records(
        self,
        side: Side,
        source: Users,
        *,
        interactions: object = None,
        strict: bool | None = None,
        faults: list[Fault] | None = None,
    ) -> Records:
        """Read the users or items of a request; arguments and errors as for `RequestReader.read`."""
        return self.reader.read(side, source, interactions=interactions, strict=strict, faults=faults)

    def rows_of(self, side: Side, ids: object) -> np.ndarray:
        """Return the rows (ids,) of known ids. Raises DataError for unknown ids."""
        return self.reader.rows_of(side, ids)

    def mask_of(self, candidates: object) -> np.ndarray | None:
        """Return (items,) bool, true for the items with the ids `candidates`; None if `candidates` is None.

        Raises:
            DataError: For unknown ids.
        """
        if candidates is None:
            return None
        allowed = np.zeros(len(self.dataset.items), bool)
        allowed[self.rows_of("item", candidates)] = True
        return allowed

    def seen_by(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the items that users have seen.

        Args:
            rows: (users,) rows among the known users; -1 for a new user.

        Returns:
            Positions in `rows`, ascending, and item rows, (pairs,) each.
        """
        inside = np.flatnonzero(rows >= 0)
        places, items = self.seen.take(rows[inside])
        return inside[places], items

    def seen_of(self, records: Records) -> tuple[np.ndarray, np.ndarray]:
        """Find the items that the users of a request have seen, by the model's data and by the request.

        Returns:
            Rows of the request, ascending, and item rows, (pairs,) each.
        """
        rows, items = self.seen_by(records.rows)
        if records.history is None:
            return rows, items
        width = len(self.dataset.items)
        more = records.history.owners * width + records.history.items
        keys = np.unique(np.concatenate([rows * width + items, more]))
        return keys // width, keys % width

    def history_of(self, records: Records) -> pa.Array:
        """Return (rows,) list<EVENT>: the known interactions of each user, followed by those of the request."""
        history = self.required_history()
        if records.everyone:
            return history
        known = history.take(pa.array(records.rows, mask=records.rows < 0))
        return known if records.history is None else extend_histories(known, records.history)

    def rows_to_encode(self, records: Records, histories: Collection[str]) -> tuple[pa.Table | None, np.ndarray]:
        """Return what the towers encode of the records of a request.

        A known id without features keeps its known vector, unless the request has interactions that a history reads:
        then it is encoded from its own record and the longer history.

        Args:
            records: The records.
            histories: The features of users that are made of histories.

        Returns:
            (rows,) the table to encode, None if all records keep their known vectors; and (rows,) bool, which records
            keep them.
        """
        reads_history = records.side == "user" and bool(histories)
        changed = records.active if reads_history else np.zeros(len(records.rows), bool)
        bare = (records.rows >= 0) & records.bare
        same = bare & ~changed
        if same.all():
            return None, same
        key = f"{records.side}_id"
        table = pa.table({key: records.ids}) if records.table is None else records.table
        if (bare & changed).any():
            known = self.dataset.table(records.side)
            table = completed(known, table, np.where(bare & changed, records.rows, -1), key)
        return add_history(table, self.history_of(records), histories) if reads_history else table, same

    def required_history(self) -> pa.Array:
        """Return `history`.

        Raises:
            ModelError: If the model has none.
        """
        if self.history is None:
            raise ModelError(Fault("model", "this model keeps no histories of its users.", "Train it again.", "format"))
        return self.history

    def seen_before(self, part: Part | np.ndarray) -> Pairs:
        """Return the items that each user had seen before a part of the split; argument and errors as for `before`."""
        if self.seen_parts is None:
            what = "this model was saved by an older version, which did not save which interactions were held out."
            raise ModelError(Fault("model", what, "Give its data as well (--data), or train it again.", "format"))
        earlier = ((1 << self.levels(part)) - 1).astype(np.uint8)
        seen = self.seen.where(self.seen_parts & np.repeat(earlier, self.seen.counts()) != 0)
        return replace(seen, items=self.dataset.keep(seen.items))

    def levels(self, part: Part | np.ndarray) -> np.ndarray:
        """Return (users,) int, the index in PARTS of `part` for each user."""
        return np.full(len(self.dataset.users), PARTS.index(part)) if isinstance(part, str) else part

    def histories_before(self, levels: np.ndarray, ordered: bool, sets: bool = False) -> pa.Array | None:
        """Return (users,) list<EVENT>, the histories before a part of the split; None if the model has no histories.

        Args:
            levels: (users,) int, as `levels` returns them.
            ordered: Whether an event with the same timestamp counts as earlier if it comes earlier in the file.
            sets: Whether the order in the file means nothing: without timestamps all events of earlier parts count.
        """
        if self.history is None or self.history_parts is None:
            return self.history
        scratch = self.dataset.scratch
        return history_before(self.history, self.history_parts, levels, ordered, sets, scratch)
