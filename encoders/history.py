"""What a user did before, as a sequence of vectors looked up in the item tower, so that content speaks for new items."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import HistoryEncoder, Params
from anyrec.core.parallel import by_shares, shares_of
from anyrec.core.ragged import Prepared, Ragged
from anyrec.core.windows import Events, PackedSequences, last_windows
from anyrec.data.list_columns import flat, offsets_of
from anyrec.encoders.sequence_blocks import MASK_VALUE, Dropout, FadingMean, Gated, PreNorm, Recurrent
from anyrec.interaction.feature_fusion import check_heads

MICROSECONDS = 1e6
USERS_AT_A_TIME = 128
"""Histories read at once, of about the same length: what is filled up stays small."""


class History(HistoryEncoder):
    """The state of a sequence model after the user's last `window` interactions: the user's vector before the next one.

    `transformer` sees what came before (SASRec, Kang and McAuley, 2018) and learns all positions at once;
    `bidirectional` sees both sides and predicts what is hidden (BERT4Rec, Sun et al., 2019); `gru` (GRU4Rec); `mean`
    fades with age.
    """

    type = "history"
    group = "history"

    class Params(Params):
        block: Literal["transformer", "bidirectional", "gru", "mean"] = "transformer"
        variant: Literal["ligr", "pre_norm"] = Field("ligr", description="Layers of the transformers: gated or plain.")
        layers: int = Field(2, ge=1, le=64, description="Layers of the transformers and the gru.")
        heads: int = Field(2, ge=1, le=256, description="Attention heads; must divide the feature dimension.")
        hidden: int = Field(4, ge=1, le=64, description="Width of a transformer's perceptron, in feature dimensions.")
        dropout: float = Field(0.2, ge=0, le=0.99)
        window: int = Field(100, ge=2, le=10_000, description="Interactions looked back on.")
        use_position: bool = Field(True, description="Add a vector for the place in the window (transformers).")
        use_gap: bool = Field(False, description="Add a vector for the time since the interaction before.")
        use_kind: bool = Field(False, description="Add a vector for the interaction's type.")
        same_time: Literal["hidden", "ordered"] = Field(
            "hidden",
            description="What happened at the very time of a target: hidden from it, or known where it stands before it in the file.",
        )
        mask_share: float = Field(0.2, ge=0.01, le=0.99, description="Share hidden in training (bidirectional).")
        half_life: float = Field(5.0, ge=1e-3, le=1e9, description="Interactions after which one weighs half (mean).")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.window = self.params.window
        self.ordered = self.params.same_time == "ordered"
        self.mask_share = self.params.mask_share if self.params.block == "bidirectional" else None
        self.by_shares = self.params.block != "gru"  # torch's GRU draws its dropout from one generator for all threads

    def fit(self, column: pa.Array) -> None:
        self.kinds = pc.struct_field(column.flatten(), "kind").drop_null().unique().sort().cast(pa.string())

    def prepare(self, column: pa.Array) -> Prepared:
        """column: list<EVENT> of `anyrec.data.histories`."""
        events, owners = flat(column)
        offsets = offsets_of(owners, len(column))
        times = pc.struct_field(events, "time")
        places = pc.index_in(pc.struct_field(events, "kind"), value_set=self.kinds)
        values = {
            "items": items_of(events),
            "gaps": _gaps(times, offsets),
            "kinds": pc.fill_null(pc.add(places, 1), 0).to_numpy(zero_copy_only=False).astype(np.int64),
            "moments": moments_of(times, offsets),
        }
        starts = torch.from_numpy(offsets)
        return Prepared(
            {name: Ragged(torch.from_numpy(part), starts) for name, part in values.items()},
            torch.from_numpy(np.diff(offsets) > 0),
        )

    def build(self) -> None:
        params, dim = self.params, self.output_dim
        self.resize = nn.Identity() if self.item_dim == dim else nn.Linear(self.item_dim, dim, bias=False)
        self.nothing = nn.Parameter(torch.randn(dim) * 0.02)
        self.dropout = Dropout(params.dropout)
        self.norm = nn.LayerNorm(dim)
        if params.use_gap:
            self.gap = nn.Linear(1, dim)
        if params.use_kind:
            self.kind = nn.Embedding(len(self.kinds) + 1, dim, padding_idx=0)
        if params.block == "gru":
            self.recurrent = Recurrent(dim, params.layers, params.dropout)
        elif params.block == "mean":
            self.mean = FadingMean(dim, params.half_life)
        else:
            check_heads(dim, params.heads, "/features/history/heads")
            layer = Gated if params.variant == "ligr" else PreNorm
            self.layers = nn.ModuleList(
                layer(dim, params.heads, params.hidden * dim, self.dropout) for _ in range(params.layers)
            )
            if params.use_position:
                self.position = nn.Embedding(params.window, dim)
                nn.init.normal_(self.position.weight, std=0.02)

    def states(self, windows: PackedSequences, items: Tensor, read: Tensor | None = None) -> Tensor:
        """windows: (rows, length); items: (items, item_dim) -> (rows, length, output_dim), the user before each next
        interaction;
        or, of one column a row, `read: (rows,)`, alone: (rows, output_dim)."""
        if read is not None or not self.by_shares or not torch.is_grad_enabled():
            return self._states(windows, items, read)
        shares = [
            PackedSequences(*(part[rows.start : rows.stop] for part in windows))
            for rows in shares_of(len(windows.items), items.device)
        ]
        if len(shares) > 1:
            self.dropout.ready(shares[0].items.numel() * self.output_dim)
        return by_shares(self, self._states, shares, items)

    def _states(self, windows: PackedSequences, items: Tensor, read: Tensor | None = None) -> Tensor:
        tokens = self.dropout(self._tokens(windows, items))
        if self.params.block == "gru":
            states = self.recurrent(tokens, windows.first)
        elif self.params.block == "mean":
            states = self.mean(tokens, windows.visible(causal=True), windows.items >= 0)
        else:
            visible = windows.visible(causal=self.params.block == "transformer").unsqueeze(1)
            bias = torch.zeros(visible.shape, device=tokens.device).masked_fill_(~visible, MASK_VALUE)
            *lower, top = self.layers
            for layer in lower:
                tokens = layer(tokens, bias)
            states = top(tokens, bias, read)
            return self.norm(states if read is None else states.squeeze(1))
        return self.norm(states if read is None else states[torch.arange(len(read), device=read.device), read])

    def _tokens(self, windows: PackedSequences, items: Tensor) -> Tensor:
        """(rows, length, output_dim)"""
        there = (windows.items >= 0).unsqueeze(-1)
        tokens = torch.where(there, self.resize(items)[windows.items.clamp(min=0)], self.nothing)
        tokens = tokens * self.output_dim**0.5
        if self.params.use_gap:
            tokens = tokens + self.gap(windows.gaps.unsqueeze(-1) / 10)
        if self.params.use_kind:
            tokens = tokens + self.kind(windows.kinds)
        if hasattr(self, "position"):
            column = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens + self.position(column - windows.first)
        return tokens

    def forward(self, values: Events, items: Tensor | None = None) -> Tensor:
        """values: histories of a batch of users; items: (items, item_dim) -> (batch, output_dim)."""
        assert items is not None
        lengths = values["items"].lengths
        order = torch.argsort(lengths, stable=True)
        parts = []
        for rows in order.split(USERS_AT_A_TIME):
            part = {name: ragged.select(rows) for name, ragged in values.items()}
            windows, read = last_windows(part, self.params.window, self.mask_share is not None)
            parts.append(self.states(windows, items, read))
        found = torch.cat(parts) if parts else items.new_empty(0, self.output_dim)
        return torch.empty_like(found).index_copy(0, order, found)

    def state(self) -> dict[str, Any]:
        return {"kinds": self.kinds}

    def restore(self, state: dict[str, Any]) -> None:
        self.kinds = state["kinds"]

    @classmethod
    def example(cls) -> pa.Array:
        """A column for the conformance kit."""
        from anyrec.data.histories import COLUMN

        event = [{"item": k % 7, "time": 1_000_000 * k * k, "kind": ("view", "buy", None)[k % 3]} for k in range(9)]
        return pa.array([None if n % 7 == 3 else event[: n % 5 + 1] for n in range(40)], COLUMN)


def items_of(events: pa.Array) -> np.ndarray:
    """(events,) int64 rows of the items' table."""
    return pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)


def _gaps(times: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """(events,) float32 log(1 + seconds) since the user's event before; 0 for the first and where a time is not known."""
    moments = pc.fill_null(times, 0).to_numpy(zero_copy_only=False)
    known = times.is_valid().to_numpy(zero_copy_only=False)
    gaps = np.zeros(len(moments))
    if len(moments):
        gaps[1:] = np.where(known[1:] & known[:-1], moments[1:] - moments[:-1], 0) / MICROSECONDS
        gaps[offsets[:-1][np.diff(offsets) > 0]] = 0
    return np.log1p(np.maximum(gaps, 0)).astype(np.float32)


def moments_of(times: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """(events,) int64 the place, within the user's events, of the first at the same time."""
    count = int(offsets[-1])
    moments = pc.fill_null(times, -1).to_numpy(zero_copy_only=False)
    begins = np.zeros(count, bool)
    if count:
        begins[1:] = moments[1:] != moments[:-1]
        begins[offsets[:-1][np.diff(offsets) > 0]] = True
    first = np.maximum.accumulate(np.where(begins, np.arange(count), 0)) if count else np.empty(0, np.int64)
    return (first - np.repeat(offsets[:-1], np.diff(offsets))).astype(np.int64)
