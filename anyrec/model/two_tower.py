"""The fitted two-tower model: representations of known users and items and of new records, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.core.contracts import Context, Head, during_request
from anyrec.core.types import JsonObject
from anyrec.data.histories import add_history
from anyrec.data.ids import SIDES, Side
from anyrec.data.split import Part
from anyrec.model.added_users import AddedUsers
from anyrec.model.fitted import INDEX, SEARCH, SIMILAR, STATES, FittedModel
from anyrec.model.prepare_histories import prepare_column
from anyrec.model.records import Records, new_items, with_changed_items
from anyrec.model.represent import ROWS_AT_A_TIME, represent_rows, token_rows, vectors_for_histories
from anyrec.model.request_reader import Reads
from anyrec.model.towers import IDENTITY, Columns, move_columns
from anyrec.model.two_tower_network import TwoTower

HISTORY_VECTORS = "item_vectors"
"""Key of `FittedModel.computed`: the item tower's vectors, if histories are encoded from them."""
TOKENS: dict[Side, str] = {"user": "user_tokens", "item": "item_tokens"}
"""Keys of `FittedModel.computed`: the vectors of the features, if a ranker reads them and the interaction does not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoTowerModel(FittedModel):
    """Two towers and an interaction with the users and items they know.

    Attributes:
        scorer: The network.
        columns: The prepared features of each side. A loaded model has none; it has the saved representations.
    """

    scorer: TwoTower
    columns: dict[Side, Columns] = field(default_factory=dict)
    has_vectors: bool = True

    @property
    def reads_history(self) -> bool:
        return self.scorer.has_history

    def reads(self) -> Reads:
        features: dict[Side, list[str]] = {side: self.scorer.tower(side).features for side in SIDES}
        return Reads(features, self.scorer.has_history or self.config.pipeline is not None)

    def describe(self) -> list[str]:
        lines = []
        for side in SIDES:
            tower = self.scorer.tower(side)
            features = ", ".join(f"{n} ({e.type})" for n, e in zip(tower.features, tower.encoders, strict=True))
            lines.append(f"{side} tower: {features} -> {tower.fusion.type} -> {tower.fusion.output_dim}")
        sizes = ", ".join(f"{name} {size:,}" for name, size in self.scorer.sizes().items() if size)
        return [*lines, f"parameters: {sizes}"]

    def about(self) -> JsonObject:
        return {"name": self.config.name, "dim": self.config.dim, "interaction": self.config.interaction.type}

    def prepare(self, side: Side, table: pa.Table, context: Context | None = None) -> Columns:
        """Prepare the features of records.

        Args:
            side: The side of the records.
            table: The records.
            context: Context of their request; by default a new one.

        Returns:
            The prepared features, on the model's device. A feature without a column in `table` is left out and counts
            as missing in all rows.
        """
        encoders, columns = dict(self.scorer.tower(side).named_encoders()), {}
        context = context or self.request_context()
        for name, source in self.features_in(side, table).items():
            with during_request(context):
                columns[name] = encoders[name].encode_column(table.column(source))
        return move_columns(columns, self.device)

    def features_in(self, side: Side, table: pa.Table) -> dict[str, str]:
        """Return the features of a side that records have, with their columns. Those made of histories have none."""
        sources = {
            name: f"{side}_id" if name == IDENTITY else name for name, _ in self.scorer.tower(side).named_encoders()
        }
        return {name: source for name, source in sources.items() if source in table.column_names}

    def prepare_history(self, history: pa.Array, context: Context | None = None) -> Columns:
        """Prepare the features that are made of histories.

        Args:
            history: (users,) list<EVENT>.
            context: As for `prepare`.

        Returns:
            The prepared features, on the model's device.
        """
        with during_request(context or self.request_context()):
            encoders, scratch = self.scorer.user.histories, self.dataset.scratch
            prepared = {name: prepare_column(encoder, history, scratch) for name, encoder in encoders.items()}
        return move_columns(prepared, self.device)

    # State of the users

    def before(self, part: Part | np.ndarray) -> Self:
        if isinstance(part, str):
            return self.computed.get(("before", part), lambda: self._before(part))
        return self._before(part)

    def _before(self, part: Part | np.ndarray) -> Self:
        encoders = self.scorer.user.histories.values()
        ordered, sets = all(one.ordered for one in encoders), all(one.unordered for one in encoders)
        history = self.histories_before(self.levels(part), ordered, sets)
        state = replace(self, seen=self.seen_before(part), history=history, computed=self.computed.without(*STATES))
        if history is None or not self.reads_history:
            return state
        columns = {**self.columns, "user": self._user_columns(history)}
        return replace(state, columns=columns, computed=state.computed.without("user", TOKENS["user"]))

    def recomputed(self) -> Self:
        """Return this model without computed values. Training calls it after it has changed the weights."""
        return replace(self, computed=type(self.computed)())

    def with_prepared_features(self) -> Self:
        columns = {side: self.prepare(side, self.dataset.table(side), self.context) for side in SIDES}
        return replace(self, columns=columns, computed=self.computed.without(*STATES))

    def _user_columns(self, history: pa.Array) -> Columns:
        """Return the prepared features of the known users with the histories `history: (users,)` list<EVENT>."""
        if self.columns.get("user"):
            return {**self.columns["user"], **self.prepare_history(history)}
        return self.prepare("user", add_history(self.dataset.users, history, self.scorer.user.histories))

    @property
    def factorised(self) -> bool:
        return self.scorer.interaction.factorised

    @property
    def reads_tokens(self) -> bool:
        return self.scorer.interaction.reads == "tokens"

    # Representations of the known users and items

    def representations(self, side: Side) -> Tensor:
        return self.computed.get(side, lambda: self._all_rows(side, represent_rows))

    def token_embeddings(self, side: Side) -> Tensor:
        if self.reads_tokens:
            return self.representations(side)
        return self.computed.get(TOKENS[side], lambda: self._all_rows(side, token_rows))

    @torch.inference_mode()  # here, since entering it for each look-up took a tenth of a request
    def _all_rows(self, side: Side, encode: Callable[..., Tensor]) -> Tensor:
        """Encode all known users or items with `represent_rows` or `token_rows`."""
        vectors = self.history_vectors() if side == "user" else None
        columns = self.columns.get(side) or self._prepared(side)
        return encode(self.scorer, side, columns, len(self.dataset.table(side)), item_vectors=vectors)

    def _prepared(self, side: Side) -> Columns:
        """Prepare the features of all known users or items, for a model without prepared features."""
        table = self.dataset.table(side)
        if side == "user" and self.reads_history:
            table = add_history(table, self.required_history(), self.scorer.user.histories)
        return self.prepare(side, table)

    def history_vectors(self) -> Tensor | None:
        """Return (items, dim), the item tower's vectors that histories are encoded from; None if there are none."""
        if not self.scorer.has_history:
            return None
        return self.computed.get(HISTORY_VECTORS, self._history_vectors)

    @torch.inference_mode()
    def _history_vectors(self) -> Tensor | None:
        return vectors_for_histories(self.scorer, self.columns.get("item", {}), self.representations("item"))

    @torch.inference_mode()
    def user_representations(self, rows: np.ndarray) -> Tensor:
        if "user" in self.computed:
            return self.representations("user")[self._places(rows)]
        columns = self.columns.get("user", {})
        return represent_rows(self.scorer, "user", columns, 0, rows, self.history_vectors())

    @torch.inference_mode()
    def user_tokens(self, rows: np.ndarray) -> Tensor:
        if self.reads_tokens:
            return self.user_representations(rows)
        if TOKENS["user"] in self.computed:
            return self.token_embeddings("user")[self._places(rows)]
        return token_rows(self.scorer, "user", self.columns.get("user", {}), 0, rows, self.history_vectors())

    def _places(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device)

    # Representations of the records of a request

    @torch.inference_mode()
    def represent(self, records: Records) -> Tensor:
        return self._encode(records, self.representations(records.side), represent_rows)

    @torch.inference_mode()
    def tokens(self, records: Records) -> Tensor:
        encode = represent_rows if self.reads_tokens else token_rows
        return self._encode(records, self.token_embeddings(records.side), encode)

    def _encode(self, records: Records, known: Tensor, encode: Callable[..., Tensor]) -> Tensor:
        """Encode the records of a request.

        A known id without features or interactions in the request gets its row of `known`.

        Args:
            records: The records.
            known: (known, ...) encodings of the known records.
            encode: `represent_rows` or `token_rows`.

        Returns:
            (rows, ...) encodings.
        """
        side, rows = records.side, records.rows
        if records.everyone:
            return known
        histories = self.scorer.user.histories
        table, same = self.rows_to_encode(records, histories)
        if table is None:
            return known[self._places(rows)]
        vectors = self.history_vectors() if side == "user" and histories else None
        columns = self.prepare(side, table, records.context)
        encoded = encode(self.scorer, side, columns, len(rows), item_vectors=vectors)
        if same.any():
            encoded[torch.from_numpy(same).to(self.device)] = known[self._places(rows[same])]
        return encoded

    # Scores

    def vectors(self, side: Side, representations: Tensor) -> Tensor:
        if representations.dim() == 3:
            representations = representations.mean(1)
        interaction = self.scorer.interaction
        if not interaction.factorised:
            return representations
        return (
            interaction.user_vectors(representations) if side == "user" else interaction.item_vectors(representations)
        )

    @property
    def heads(self) -> dict[str, Head]:
        return {name: cast(Head, head) for name, head in self.scorer.heads.items()}

    @torch.inference_mode()
    def predict(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        predictions: dict[str, list[Tensor]] = {"score": []}
        for u, i in zip(users.split(ROWS_AT_A_TIME), items.split(ROWS_AT_A_TIME), strict=True):
            predictions["score"].append(self.scorer.score(u, i.unsqueeze(1)).squeeze(1))
            for name, head in self.scorer.heads.items():
                predictions.setdefault(name, []).append(head(self.scorer.interaction.pair(u, i)))
        return {name: torch.cat(parts) for name, parts in predictions.items()}

    def similar_items(self, rows: np.ndarray) -> None:
        return None

    # Further users and items

    @torch.inference_mode()
    def with_added_users(self, added: AddedUsers, shared: JsonObject) -> Self:
        computed = self.computed.without(*STATES, "user", TOKENS["user"]).known()
        computed["user"] = added.tensor(self.representations("user"), self.represent(added.records))
        if TOKENS["user"] in self.computed:
            computed[TOKENS["user"]] = added.tensor(self.token_embeddings("user"), self.tokens(added.records))
        columns = {side: columns for side, columns in self.columns.items() if side != "user"}
        return replace(self, columns=columns, computed=type(self.computed)(computed), **shared)

    @torch.inference_mode()
    def with_items(self, records: Records, *, replace_known: bool = False) -> TwoTowerModel:
        if replace_known and (records.rows >= 0).any():
            return self._with_changed_items(records).with_items(records)
        if not (records.rows < 0).any():
            return self
        dataset, new = new_items(self.dataset, records)
        table = new.required_table()
        represented = self.represent(new)
        values = self.computed.without(*STATES, INDEX, SIMILAR, SEARCH).known() | {
            "item": torch.cat([self.representations("item"), represented])
        }
        if TOKENS["item"] in self.computed:
            values[TOKENS["item"]] = torch.cat([self.token_embeddings("item"), self.tokens(new)])
        vectors = self.history_vectors()
        if vectors is not None:
            columns = self.prepare("item", table, new.context) if self.reads_tokens else {}  # else they are not read
            more = vectors_for_histories(self.scorer, columns, represented)
            values[HISTORY_VECTORS] = vectors if more is None else torch.cat([vectors, more])
        return replace(
            self, dataset=dataset, base=self.base or self, extended=True, computed=type(self.computed)(values)
        )

    @torch.inference_mode()
    def _with_changed_items(self, records: Records) -> TwoTowerModel:
        """Return this model with other records, and their vectors, of the known items among `records`."""
        inside = records.rows >= 0
        table = records.required_table().filter(pa.array(inside))
        rows = records.rows[inside]
        changed = replace(records, ids=records.ids.filter(pa.array(inside)), rows=rows, table=table)
        represented, places = self.represent(changed), self._places(rows)
        values = self.computed.without(*STATES, INDEX, SIMILAR, SEARCH).known()
        values["item"] = self.representations("item").index_copy(0, places, represented)
        if TOKENS["item"] in self.computed:
            values[TOKENS["item"]] = self.token_embeddings("item").index_copy(0, places, self.tokens(changed))
        vectors = self.history_vectors()
        if vectors is not None:
            columns = self.prepare("item", table, changed.context) if self.reads_tokens else {}
            more = vectors_for_histories(self.scorer, columns, represented)
            values[HISTORY_VECTORS] = vectors if more is None else vectors.index_copy(0, places, more)
        dataset = with_changed_items(self.dataset, records)
        return replace(self, dataset=dataset, base=None, extended=True, computed=type(self.computed)(values))
