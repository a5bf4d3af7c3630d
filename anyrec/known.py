"""A fitted model with the users and items that it knows: from ids and records to vectors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.contracts import Context, during_request
from anyrec.data.dataset import Side
from anyrec.data.histories import Events, add_history, events_of, extended, history_column, known_before
from anyrec.data.labels import Labels, label_interactions
from anyrec.data.split import Split
from anyrec.model import Columns, move_columns
from anyrec.records import Records, completed
from anyrec.request_reader import RequestReader, Users
from anyrec.scoring import represent_rows, token_rows, vectors_for_histories

VECTORS = "item_vectors"
"""Among what is known: the item tower's vectors, where histories are made of them."""
TOKENS: dict[Side, str] = {"user": "user_tokens", "item": "item_tokens"}
"""Among what is known: feature vectors, where a ranker reads them and the interaction does not."""


class Known(RequestReader):
    """What `Recommender` fits, saves and loads, and how it looks at ids and records."""

    device: torch.device
    split: Split | None
    columns: dict[Side, Columns]
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

    def _prepare_history(self, history: pa.Array, context: Context | None = None) -> Columns:
        """The users' features that are made of `history`, a row a user. context: of a request; by default made here."""
        with during_request(context or self.request_context()):
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
        """No gradients; a model in training mode is put back into it.

        A fitted model stays in evaluation mode, so that threads that ask it at once never switch modes.
        """
        training = self.model.training
        if training:
            self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                self.model.train()

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

    def _represent(self, side: Side, source: Users) -> tuple[pa.Array, Tensor, np.ndarray]:
        """Ids, what the interaction reads of each, and each one's row among the known (-1 if new).

        A record with a known id and no feature at all stands for the known one.
        """
        records = self.read_records(side, source)
        return records.ids, self._made(records, self._known_rows(side), represent_rows), records.rows

    def _tokens(self, side: Side, source: Users) -> Tensor:
        """(rows, features, dim) the feature vectors of each, as `_represent` reads them."""
        make = represent_rows if self.model.interaction.reads == "tokens" else token_rows
        return self._made(self.read_records(side, source), self._known_tokens(side), make)

    def _made(self, records: Records, known: Tensor, make: Callable[..., Tensor]) -> Tensor:
        """What `make` makes of the records, and `known: (known, ...)` of ids and of records that hold nothing else."""
        side, rows = records.side, records.rows
        if records.everyone:
            return known
        reads = side == "user" and self.model.has_history
        changed = records.active if reads else np.zeros(len(rows), bool)
        if records.table is None and not changed.any():
            return known[torch.from_numpy(rows).to(self.device)]
        bare = (rows >= 0) & records.bare
        table = pa.table({f"{side}_id": records.ids}) if records.table is None else records.table
        if (bare & changed).any():
            table = completed(self.dataset.table(side), table, np.where(bare & changed, rows, -1), f"{side}_id")
        vectors = None
        if reads:
            table = add_history(table, self._histories(records), self.model.user.histories)
            vectors = self._item_vectors()
        columns = move_columns(self.model.tower(side).prepare(table, side, records.context), self.device)
        made = make(self.model, side, columns, len(rows), item_vectors=vectors)
        same = bare & ~changed
        if same.any():
            made[torch.from_numpy(same).to(self.device)] = known[torch.from_numpy(rows[same]).to(self.device)]
        return made

    def _histories(self, records: Records) -> pa.Array:
        """(rows,) what users did: what is known of a known user, and what the request says."""
        assert self.history is not None
        if records.everyone:
            return self.history
        known = self.history.take(pa.array(records.rows, mask=records.rows < 0))
        return known if records.brought is None else extended(known, records.brought)
