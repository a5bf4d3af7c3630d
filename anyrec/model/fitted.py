"""A fitted model with the users and items that it knows: from ids and records to vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.core.contracts import Context, during_request
from anyrec.core.errors import Fault, ModelError
from anyrec.data.dataset import Side
from anyrec.data.histories import (
    Events,
    add_history,
    events_of,
    extended,
    history_before,
    history_column,
    parts_of_events,
)
from anyrec.data.labels import Labels
from anyrec.data.split import PARTS, Part, Split, part_of_each
from anyrec.evaluation.ranking import Pairs
from anyrec.model.records import Records, completed
from anyrec.model.request_reader import RequestReader, Users
from anyrec.model.scoring import represent_rows, token_rows, vectors_for_histories
from anyrec.model.towers import Columns, move_columns

VECTORS = "item_vectors"
"""Among what is known: the item tower's vectors, where histories are made of them."""
TOKENS: dict[Side, str] = {"user": "user_tokens", "item": "item_tokens"}
"""Among what is known: feature vectors, where a ranker reads them and the interaction does not."""


T = TypeVar("T", bound="Known")


class Known(RequestReader):
    """What `Recommender` fits, saves and loads, and how it looks at ids and records."""

    device: torch.device
    split: Split | None
    columns: dict[Side, Columns]
    seen: Pairs
    """Which items each known user had; `recommend` leaves them out by default."""
    seen_parts: np.ndarray | None
    """(pairs,) uint8: bit n is set if the pair of `seen` happened in part n of the split (`part_of_each`). None for a model
    that an older version saved."""
    history: pa.Array | None
    """(users,) list<EVENT>: what each known user did, if the model or its pipeline reads it."""
    history_parts: np.ndarray | None
    """(events,) int8: the part of the split that each event of `history` happened in."""
    _known: dict[str, Tensor]
    _before: dict[str, tuple[pa.Array, Columns]]
    """By part, the histories before it and the users' prepared features with them."""

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

    def _remember(self, labels: Labels, events: bool) -> None:
        """Keep which items each user had, and in which part of the split.

        Args:
            events: also keep the histories, for a model or a pipeline that reads them.
        """
        assert self.split is not None
        dataset = self.dataset
        parts = part_of_each(dataset, self.split, labels.positive)
        self.seen, self.seen_parts = Pairs.by_part(dataset.user_rows, dataset.item_rows, parts, len(dataset.users))
        self._before = {}
        if events:
            everything = self._events(np.arange(len(dataset.interactions)), labels)
            self.history = history_column(dataset, everything)
            self.history_parts = parts_of_events(everything, parts)

    def before(self: T, part: Part | np.ndarray) -> T:
        """This recommender as it was before a part of the split; everything that is measured is measured on it.

        Of each user it knows (`seen`, the history, the user vectors) what happened in earlier parts; its weights are the same.

        Args:
            part: `validation` or `test`, or (users,) the place in PARTS of a part of its own for each user, NOW for one of
                whom everything is known.

        Raises:
            ModelError: if the model was saved by a version that did not save which part an interaction was in.
        """
        levels = self._levels(part)
        state: T = copy.copy(self)
        state.seen = self.seen_before(part)
        state._known, state._before = dict(self._known), {}
        if self.history is None:
            return state
        if not self.model.has_history:
            state.history = self._history_before(levels)
            return state
        kept = self._before.get(part) if isinstance(part, str) else None
        if kept is None:
            history = self._history_before(levels)
            kept = history, self._user_columns(history)
            if isinstance(part, str):
                self._before[part] = kept
        state.history, state.columns = kept[0], {**self.columns, "user": kept[1]}
        for name in ("user", TOKENS["user"]):
            state._known.pop(name, None)
        return state

    def seen_before(self, part: Part | np.ndarray) -> Pairs:
        """Which items each user had before a part of the split. part: as for `before`."""
        if self.seen_parts is None:
            what = "this model was saved by an older version, which did not save which interactions were held out."
            raise ModelError(Fault("model", what, "Give its data as well (--data), or train it again.", "format"))
        earlier = (1 << self._levels(part)) - 1
        return self.seen.where(self.seen_parts & earlier[self.seen.owners()] != 0)

    def _levels(self, part: Part | np.ndarray) -> np.ndarray:
        """(users,) the place in PARTS that `part` stands for."""
        return np.full(len(self.dataset.users), PARTS.index(part)) if isinstance(part, str) else part

    def _history_before(self, levels: np.ndarray) -> pa.Array:
        assert self.history is not None and self.history_parts is not None
        encoders = self.model.user.histories.values() if self.model.has_history else ()
        ordered = all(encoder.ordered for encoder in encoders)
        return history_before(self.history, self.history_parts, levels, ordered)

    def _user_columns(self, history: pa.Array) -> Columns:
        """The known users' prepared features with `history: (users,)` in the place of their own."""
        if self.columns.get("user"):
            return {**self.columns["user"], **self._prepare_history(history)}
        table = add_history(self.dataset.users, history, self.model.user.histories)
        return move_columns(self.model.user.prepare(table, "user", self.request_context()), self.device)

    def _users(self, rows: np.ndarray) -> Tensor:
        """What the interaction reads of the known users `rows: (users,)`."""
        if "user" in self._known:
            return self._known["user"][torch.from_numpy(rows).to(self.device)]
        return represent_rows(self.model, "user", self.columns.get("user", {}), 0, rows, self._item_vectors())

    def _user_tokens(self, rows: np.ndarray) -> Tensor:
        """(users, features, dim) the feature vectors of the known users `rows: (users,)`."""
        if self.model.interaction.reads == "tokens":
            return self._users(rows)
        if TOKENS["user"] in self._known:
            return self._known[TOKENS["user"]][torch.from_numpy(rows).to(self.device)]
        return token_rows(self.model, "user", self.columns.get("user", {}), 0, rows, self._item_vectors())

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
