"""A user's past interactions, read by a sequence model.

Each interaction is represented by its item's vector in the item tower, so new items are represented by their content.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from anyrec.core.contracts import HistoryEncoder, Params, only_with
from anyrec.core.parallel import by_shares, shares_of
from anyrec.core.params import tunable
from anyrec.core.ragged import Padded, Prepared, tensors
from anyrec.core.row_masks import current, of_all
from anyrec.core.time_limit import check_time
from anyrec.core.windows import Events, PackedSequences, common_columns, last_windows
from anyrec.data.histories import COLUMN
from anyrec.data.preparation.events import events_of_users
from anyrec.encoders.sequence_blocks import HIDDEN_BIAS, DecayedMean, Dropout, LiGR, PreNorm, Recurrent
from anyrec.interaction.feature_fusion import check_heads

TRANSFORMERS = ("transformer", "bidirectional")
USERS_AT_A_TIME = 128
"""Users encoded at once at inference. They have histories of similar length, so there is little padding."""
VARIANTS_AT_A_TIME = 16
"""Histories that are nearly the same that are encoded at once. Fewer have more first interactions in common."""


class History(HistoryEncoder):
    """The state of a sequence model after the user's last `window` interactions, which predicts the next one.

    `transformer` attends to earlier interactions only, so one pass trains on every position (SASRec). `bidirectional`
    attends to both sides and predicts hidden interactions (BERT4Rec). `gru` is a recurrent network (GRU4Rec). `mean` is
    a mean whose weights decay with the number of interactions since.

    References:
        Kang and McAuley, Self-Attentive Sequential Recommendation, 2018. Unlike SASRec, the loss, the negatives and by
        default the layers (`ligr`) are those of the config, and sequences are packed without padding.

        Sun et al., BERT4Rec, 2019.

        Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, 2016.
    """

    type = "history"
    group = "history"
    preparation = "history"

    class Params(Params):
        block: Literal["transformer", "bidirectional", "gru", "mean"] = Field(
            "transformer", description="The sequence model."
        )
        variant: Literal["ligr", "pre_norm"] = Field(
            "ligr",
            description="Layers of the transformers: with gated residuals and SwiGLU, or plain.",
            json_schema_extra=only_with(block=TRANSFORMERS),
        )
        layers: int = Field(
            2,
            ge=1,
            le=64,
            description="Layers of the transformers and the gru.",
            json_schema_extra=only_with(block=[*TRANSFORMERS, "gru"]) | tunable(1, 4),
        )
        heads: int = Field(
            2,
            ge=1,
            le=256,
            description="Attention heads of the transformers; must divide the feature dimension.",
            json_schema_extra=only_with(block=TRANSFORMERS),
        )
        hidden: int = Field(
            4,
            ge=1,
            le=64,
            description="Hidden units of a transformer's perceptron, as a multiple of the dimension.",
            json_schema_extra=only_with(block=TRANSFORMERS),
        )
        dropout: float = Field(
            0.2,
            ge=0,
            le=0.99,
            description="Fraction of values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )
        window: int = Field(100, ge=2, le=10_000, description="Latest interactions that are read.")
        use_position: bool = Field(
            True,
            description="Add a learned vector for the position (transformers).",
            json_schema_extra=only_with(block=TRANSFORMERS),
        )
        use_gap: bool = Field(False, description="Add a vector for the time since the previous interaction.")
        use_kind: bool = Field(False, description="Add a learned vector for the type of interaction.")
        same_time: Literal["hidden", "ordered"] = Field(
            "hidden",
            description="Interactions at the time of the target: hidden, or visible if they precede it in the file.",
        )
        mask_share: float = Field(
            0.2,
            ge=0.01,
            le=0.99,
            description="Fraction of interactions hidden in training (bidirectional).",
            json_schema_extra=only_with(block=["bidirectional"]),
        )
        half_life: float = Field(
            5.0,
            ge=1e-3,
            le=1e9,
            description="Interactions after which the weight of one is halved (mean).",
            json_schema_extra=only_with(block=["mean"]),
        )

    def __init__(self, params: BaseModel | None = None, output_dim: int = 64):
        super().__init__(params, output_dim)
        self.window = self.params.window
        self.ordered = self.params.same_time == "ordered"
        self.mask_share = self.params.mask_share if self.params.block == "bidirectional" else None
        # torch's GRU draws its dropout from one generator for all threads, so its result would depend on their timing.
        self.uses_own_threads = self.params.block != "gru"

    @classmethod
    def example(cls) -> pa.Array:
        """Return a column for the conformance kit."""
        event = [{"item": k % 7, "time": 1_000_000 * k * k, "kind": ("view", "buy", None)[k % 3]} for k in range(9)]
        return pa.array([None if n % 7 == 3 else event[: n % 5 + 1] for n in range(40)], COLUMN)

    def fit(self, column: pa.Array) -> None:
        """Learn the types of interaction, in ascending order."""
        self.kinds = pc.struct_field(column.flatten(), "kind").drop_null().unique().sort().cast(pa.string())

    def prepare(self, column: pa.Array) -> Prepared:
        """Convert the events of each user to tensors.

        Args:
            column: (users,) lists of `anyrec.data.histories.EVENT`, oldest first.

        Returns:
            `anyrec.core.windows.Events`. A user without an event is absent.
        """
        return tensors(events_of_users(column, self.kinds))

    def build(self) -> None:
        """Create the layers."""
        params, dim = self.params, self.output_dim
        self.resize = nn.Identity() if self.item_dim == dim else nn.Linear(self.item_dim, dim, bias=False)
        self.nothing = nn.Parameter(torch.randn(dim) * 0.02)  # the vector of a token without an item
        self.dropout = Dropout(params.dropout)
        self.norm = nn.LayerNorm(dim)
        if params.use_gap:
            self.gap = nn.Linear(1, dim)
        if params.use_kind:
            self.kind = nn.Embedding(len(self.kinds) + 1, dim, padding_idx=0)
        self.position: nn.Embedding | None = None
        if params.block == "gru":
            self.recurrent = Recurrent(dim, params.layers, params.dropout)
        elif params.block == "mean":
            self.mean = DecayedMean(dim, params.half_life)
        else:
            check_heads(dim, params.heads, "/features/history/heads")
            layer = LiGR if params.variant == "ligr" else PreNorm
            self.layers = nn.ModuleList(
                layer(dim, params.heads, params.hidden * dim, self.dropout) for _ in range(params.layers)
            )
            if params.use_position:
                self.position = nn.Embedding(params.window, dim)
                nn.init.normal_(self.position.weight, std=0.02)

    def states(self, windows: PackedSequences, items: Tensor, read: Tensor | None = None) -> Tensor:
        """Compute the user's vector at each token, or at one token of each row.

        In training, the rows are distributed over threads, each of which builds the graph of its share.

        Args:
            windows: (rows, length) tokens.
            items: (items, item_dim) vectors that `windows.items` indexes.
            read: (rows,) int64, the only column of each row to compute; None for all columns.

        Returns:
            (rows, length, output_dim), or with `read` (rows, output_dim).
        """
        if read is not None or not self.uses_own_threads or not torch.is_grad_enabled():
            return self._states(windows, items, read)
        rows = shares_of(len(windows.items), items.device)
        shares = [PackedSequences(*(part[own.start : own.stop] for part in windows)) for own in rows]
        if len(shares) > 1:
            # The first share is the largest. Its size decides that of the pool, which all threads use.
            largest = windows if current() is not None else shares[0]
            self.dropout.ready(of_all(largest.items.numel() * self.output_dim))
        return by_shares(self, self._states, shares, items, rows)

    def forward(self, values: Events, items: Tensor | None = None) -> Tensor:
        """Compute the users' vectors after all their interactions.

        Args:
            values: The events of a batch of users.
            items: (items, item_dim) vectors of the items that the events refer to.

        Returns:
            (batch, output_dim).
        """
        assert items is not None
        if isinstance(values["items"], Padded):
            windows, read = self._last_windows(values)
            return self._states(windows, items, read)
        lengths = values["items"].lengths
        order = torch.argsort(lengths, stable=True)
        parts = []
        for rows in order.split(USERS_AT_A_TIME):
            part = {name: ragged.select(rows) for name, ragged in values.items()}
            windows, read = self._last_windows(part)
            parts.append(self.states(windows, items, read))
        found = torch.cat(parts) if parts else items.new_empty(0, self.output_dim)
        return torch.empty_like(found).index_copy(0, order, found)

    def encode_variants(self, values: Events, items: Tensor) -> Tensor:
        """Compute users' vectors; arguments and result as of `forward`.

        A state of `transformer` depends on no later token. So what the histories of a block have in common at their
        beginning is computed once.
        """
        if self.params.block != "transformer" or not values["items"].rows:
            return self(values, items)
        parts = []
        for rows in torch.arange(values["items"].rows, device=items.device).split(VARIANTS_AT_A_TIME):
            check_time()
            windows, read = self._last_windows({name: part.select(rows) for name, part in values.items()})
            parts.append(self._states(windows, items, read, min(common_columns(windows), int(read.min()))))
        return torch.cat(parts)

    def _last_windows(self, events: Events) -> tuple[PackedSequences, Tensor]:
        """Return the tokens of each user's last events, and the column whose state represents the user now."""
        return last_windows(events, self.params.window, self.mask_share is not None)

    def _states(self, windows: PackedSequences, items: Tensor, read: Tensor | None = None, common: int = 0) -> Tensor:
        """Compute the states on this thread. Arguments and result as of `states`.

        Of a causal transformer, with `read`, the first `common` columns, the same in all rows, are computed once.
        """
        tokens = self.dropout(self._tokens(windows, items))
        if self.params.block == "gru":
            states = self.recurrent(tokens, windows.first)
        elif self.params.block == "mean":
            states = self.mean(tokens, windows.visible(causal=True), windows.items >= 0)
        else:
            visible = windows.visible(causal=self.params.block == "transformer").unsqueeze(1)
            bias = torch.zeros(visible.shape, device=tokens.device).masked_fill_(~visible, HIDDEN_BIAS)
            *lower, top = self.layers
            before, own = None, bias
            if common:
                before, own, tokens = tokens[:1, :common], bias[:, :, common:], tokens[:, common:]
            for layer in lower:
                tokens = layer(tokens, own, before=before)
                before = None if before is None else layer(before, bias[:1, :, :common, :common])
            if read is None:
                return self.norm(top(tokens, own))
            # only the last layer can be restricted to the columns that are read
            return self.norm(top(tokens, own, read - common, before).squeeze(1))
        if read is not None:
            states = states[torch.arange(read.shape[0], device=read.device), read]
        return self.norm(states)

    def _tokens(self, windows: PackedSequences, items: Tensor) -> Tensor:
        """Return (rows, length, output_dim), the input of the sequence model."""
        there = (windows.items >= 0).unsqueeze(-1)
        tokens = torch.where(there, self.resize(items)[windows.items.clamp(min=0)], self.nothing)
        tokens = tokens * self.output_dim**0.5  # as in SASRec, so that position vectors do not dominate
        if self.params.use_gap:
            tokens = tokens + self.gap(windows.gaps.unsqueeze(-1) / 10)  # log seconds: 10 is about six hours
        if self.params.use_kind:
            tokens = tokens + self.kind(windows.kinds)
        if self.position is not None:
            column = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens + self.position(column - windows.first)
        return tokens

    def state(self) -> dict[str, Any]:
        return {"kinds": self.kinds}

    def restore(self, state: dict[str, Any]) -> None:
        self.kinds = state["kinds"]
