"""A fitted model with the users and items that it knows: from ids and records to vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from anyrec.config import Config
from anyrec.contracts import Context
from anyrec.data.dataset import Dataset, Side, rows_of
from anyrec.data.histories import Events, add_history, events_of, history_column, known_before, own_history
from anyrec.data.labels import Labels, label_interactions
from anyrec.data.split import Split
from anyrec.errors import DataError, Fault
from anyrec.model import Columns, Model, move_columns
from anyrec.scoring import represent_rows, token_rows, vectors_for_histories

VECTORS = "item_vectors"
"""Among what is known: the item tower's vectors, where histories are made of them."""
TOKENS: dict[Side, str] = {"user": "user_tokens", "item": "item_tokens"}
"""Among what is known: feature vectors, where a ranker reads them and the interaction does not."""
Users = Sequence[Any] | pa.Array | pa.ChunkedArray | pa.Table | Dataset | None


class Known:
    """What `Recommender` fits, saves and loads, and how it looks at ids and records."""

    config: Config
    device: torch.device
    model: Model
    dataset: Dataset
    split: Split | None
    columns: dict[Side, Columns]
    context: Context
    history: pa.Array | None
    """What each known user did, where the model reads it: a row a user."""
    _known: dict[str, Tensor]
    _before: dict[str, Columns]

    def _events(self, rows: np.ndarray, labels: Labels) -> Events:
        return events_of(self.dataset, rows, labels.negative, self.config.data.history)

    def _ordered(self) -> bool:
        """Whether what stands before a target in the file, at the same time, is known to it. Without times nothing else is."""
        encoders = self.model.user.histories.values()
        return self.dataset.column("timestamp") is None or all(one.ordered for one in encoders)

    def _prepare_history(self, history: pa.Array) -> Columns:
        """The users' features that are made of `history`, a row a user."""
        self.context.items = self.dataset.items  # shared with those that know more items (`add_items`)
        found = {name: encoder.encode_column(history) for name, encoder in self.model.user.histories.items()}
        return move_columns(found, self.device)

    def users_before(self, part: Literal["validation", "test"]) -> Columns:
        """The users' features as they were before their first held-out interaction of one part of the split."""
        if not self.model.has_history:
            return self.columns["user"]
        if part not in self._before:
            self._before[part] = {**self.columns["user"], **self._prepare_history(self.history_before(part))}
        return self._before[part]

    def history_before(self, part: Literal["validation", "test"]) -> pa.Array:
        """(users,) what each user did before their first held-out interaction of one part of the split."""
        assert self.split is not None
        labels = label_interactions(self.dataset, self.config.data)
        known = self.split.train if part == "validation" else np.union1d(self.split.train, self.split.validation)
        ordered = not self.model.has_history or self._ordered()
        events = known_before(self.dataset, self.split, part, self._events(known, labels), ordered)
        return history_column(self.dataset, events)

    def _vectors(self, side: Side, representation: Tensor) -> Tensor:
        """One vector a row: in the dot-product space where the interaction has one, else as the tower made it."""
        if representation.dim() == 3:
            representation = representation.mean(1)
        interaction = self.model.interaction
        if not interaction.factorised:
            return representation
        return interaction.user_vectors(representation) if side == "user" else interaction.item_vectors(representation)

    @contextmanager
    def _inference(self) -> Any:
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.model.train(training)

    def _known_rows(self, side: Side) -> Tensor:
        """What the interaction reads of every known user or item, computed once."""
        if side not in self._known:
            vectors = self._item_vectors() if side == "user" else None
            count = len(self.dataset.table(side))
            self._known[side] = represent_rows(self.model, side, self.columns[side], count, item_vectors=vectors)
        return self._known[side]

    def _item_vectors(self) -> Tensor | None:
        """(items, dim) what histories are made of; None where no feature is."""
        if VECTORS not in self._known:
            vectors = vectors_for_histories(self.model, self.columns.get("item", {}), self._known_rows("item"))
            if vectors is None:
                return None
            self._known[VECTORS] = vectors
        return self._known[VECTORS]

    def _known_tokens(self, side: Side) -> Tensor:
        """(rows, features, dim) the feature vectors of every known user or item, computed once."""
        if self.model.interaction.reads == "tokens":
            return self._known_rows(side)
        if TOKENS[side] not in self._known:
            vectors = self._item_vectors() if side == "user" else None
            count = len(self.dataset.table(side))
            self._known[TOKENS[side]] = token_rows(self.model, side, self.columns[side], count, item_vectors=vectors)
        return self._known[TOKENS[side]]

    def _represent(self, side: Side, records: Users) -> tuple[pa.Array, Tensor, np.ndarray]:
        """Ids, what the interaction reads of each, and each one's row among the known (-1 if new).

        A record with a known id and no feature at all stands for the known one.
        """
        ids, table, rows = self._look_up(side, records)
        return ids, self._made(side, records, table, rows, self._known_rows(side), represent_rows), rows

    def _tokens(self, side: Side, records: Users) -> Tensor:
        """(rows, features, dim) the feature vectors of each, as `_represent` reads them."""
        _, table, rows = self._look_up(side, records)
        make = represent_rows if self.model.interaction.reads == "tokens" else token_rows
        return self._made(side, records, table, rows, self._known_tokens(side), make)

    def _look_up(self, side: Side, records: Users) -> tuple[pa.Array, pa.Table | None, np.ndarray]:
        """Ids, the records where any were given, and each one's row among the known."""
        if records is None:
            return self.dataset.ids(side), None, np.arange(len(self.dataset.table(side)))
        if isinstance(records, Dataset):
            self.context.root = Path(self.config.data.image_root) if self.config.data.image_root else records.root
            records = records.table(side)
        if isinstance(records, list) and records and isinstance(records[0], dict):
            from anyrec.data.read import records_to_table

            records = records_to_table(records, side, self.dataset.roles)
        if not isinstance(records, pa.Table):
            rows = self._rows_of_ids(side, records)
            return self.dataset.ids(side).take(pa.array(rows)), None, rows
        table: pa.Table = records
        ids = table.column(f"{side}_id").combine_chunks()
        return ids, table, rows_of(ids, self.dataset.ids(side))

    def _made(
        self,
        side: Side,
        given: Users,
        table: pa.Table | None,
        rows: np.ndarray,
        known: Tensor,
        make: Callable[..., Tensor],
    ) -> Tensor:
        """What `make` makes of the records, and `known: (known, ...)` of ids and of records that hold nothing else."""
        if table is None:
            return known if given is None else known[torch.from_numpy(rows).to(self.device)]
        bare = (rows >= 0) & _bare(table, f"{side}_id")
        vectors = None
        if side == "user" and self.model.has_history:
            table = add_history(table, self._histories(table, rows), self.model.user.histories)
            vectors = self._item_vectors()
        columns = move_columns(self.model.tower(side).prepare(table, side), self.device)
        made = make(self.model, side, columns, len(rows), item_vectors=vectors)
        if bare.any():
            made[torch.from_numpy(bare).to(self.device)] = known[torch.from_numpy(rows[bare]).to(self.device)]
        return made

    def _histories(self, records: pa.Table, rows: np.ndarray) -> pa.Array:
        """(rows,) what users did: the list that a record brings along, or what is known of a known user."""
        assert self.history is not None
        known, name = self.history, f"temporal.{self.config.data.history}"
        place = pa.array(rows, mask=rows < 0)
        if name in records.column_names:
            lists = records.column(name).combine_chunks()
            own, unknown = own_history(lists, self.dataset.ids("item"))
            if unknown:
                self.context.warnings.append(
                    f"{unknown} items of the histories given are not known and were passed over."
                )
            brought = np.arange(len(known), len(known) + len(lists))
            place = pc.if_else(lists.is_valid(), pa.array(brought), place)
            known = pa.concat_arrays([known, own])
        self.context.items = self.dataset.items
        return known.take(place)

    def _rows_of_ids(self, side: Side, ids: Any) -> np.ndarray:
        """Rows of known ids; raises DataError naming those that are not."""
        if not isinstance(ids, (pa.Array, pa.ChunkedArray)):
            ids = pa.array(list(ids), None if len(ids) else self.dataset.ids(side).type)
        rows = rows_of(ids, self.dataset.ids(side))
        if (rows < 0).any():
            faults = [
                Fault(
                    f"{side}_id {ids[int(place)].as_py()!r}",
                    f"the model knows no such {side}.",
                    "Give its record.",
                    "unknown id",
                )
                for place in np.flatnonzero(rows < 0)[:20]
            ]
            raise DataError(faults, {"unknown id": int((rows < 0).sum())})
        return rows


def _bare(table: pa.Table, key: str) -> np.ndarray:
    """(rows,) bool: records that hold nothing but their id."""
    bare = np.ones(len(table), bool)
    for name in table.column_names:
        if name != key:
            bare &= table.column(name).is_null().to_numpy()
    return bare
