"""The layers of sequence models: transformer layers, a recurrent layer and a decayed mean.

All take tokens `(rows, length, dim)` of packed sequences (`anyrec.core.windows.PackedSequences`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from anyrec.core.parallel import generator
from anyrec.core.row_masks import RowDropout, current, dropout, of_all

HIDDEN_BIAS = -1e9
"""Added to the attention score of a token that must not be attended to. Finite, since rows of only -inf give NaN."""
STEPS = 256
"""Values of a random byte; the dropout rate is rounded to a multiple of 1/256."""
POOL = 2
"""Size of the pool of random numbers, in multiples of the largest mask."""


class Dropout(nn.Module):
    """Dropout at a rate rounded to a multiple of 1/256, with masks cut from a pool of random numbers.

    On a CPU, drawing random numbers takes more time than the layers between. A pool of them is drawn once an epoch, and
    each mask is a slice of it from a random place. Masks of the same epoch are therefore not independent. One
    instance is shared by all layers, and so is its pool.

    Args:
        share: Fraction of the values to set to zero in training. The others are scaled up to keep the mean.
    """

    def __init__(self, share: float):
        super().__init__()
        self.below = round(share * STEPS)
        self.pools: dict[torch.dtype, Tensor] = {}

    def train(self, mode: bool = True) -> Dropout:
        """Set the mode, and drop the pool: each epoch draws a new one."""
        self.pools = {}
        return super().train(mode)

    def ready(self, count: int) -> None:
        """Draw the pool, if there is none that is large enough.

        Call it before starting threads; otherwise each of them would draw its own.

        Args:
            count: Values of the largest mask.
        """
        pool = self.pools.get(torch.float32)
        if self.training and self.below and (pool is None or len(pool) < POOL * count):
            self.pools = {torch.float32: self._pool(POOL * count)}

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` with some of them set to zero, in training; otherwise `values`."""
        if not self.training or not self.below:
            return values
        if values.is_cuda:
            return dropout(values, self.below / STEPS, self.training)
        count, part = of_all(values.numel()), current()
        self.ready(count)
        pool = self.pools.get(values.dtype)
        if pool is None:
            pool = self.pools[values.dtype] = self.pools[torch.float32].to(values.dtype)
        start = int(torch.randint(len(pool) - count + 1, (), generator=generator()))
        mask = pool[start : start + count]
        if part is not None:
            mask = mask.view(part.total, -1)[part.own]
        return values * mask.view_as(values)

    def _pool(self, count: int) -> Tensor:
        """Return (count,) float32: 0, or the factor that keeps the mean. One draw of 64 bits gives eight of them."""
        words = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[:count] >= self.below
        return keep * (STEPS / (STEPS - self.below))


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: Dimension of the tokens.
        heads: Attention heads; must divide `dim`.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, bias: Tensor, before: Tensor | None = None) -> Tensor:
        """Attend from all tokens.

        Args:
            tokens: (rows, length, dim).
            bias: (rows, 1, length, common + length), added to the attention scores.
            before: (1, common, dim) tokens that precede those of each row; None for none.

        Returns:
            (rows, length, dim).
        """
        rows, length, dim = tokens.shape
        split = self.project(tokens).view(rows, length, 3, self.heads, dim // self.heads)
        query, *seen = split.permute(2, 0, 3, 1, 4)  # each (rows, heads, length, dim / heads)
        key, value = seen if before is None else self._joined(seen, before)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.out(mixed.transpose(1, 2).reshape(rows, length, dim))

    def at(self, tokens: Tensor, bias: Tensor, place: Tensor, before: Tensor | None = None) -> Tensor:
        """Attend from one token of each row only, which inference needs.

        Args:
            tokens: (rows, length, dim).
            bias: (rows, 1, 1, common + length), added to the attention scores.
            place: (rows,) int64, the column of the token.
            before: As of `forward`.

        Returns:
            (rows, 1, dim).
        """
        rows, length, dim = tokens.shape
        weight, shift = self.project.weight, self.project.bias
        query = functional.linear(tokens[torch.arange(rows, device=place.device), place], weight[:dim], shift[:dim])
        split = functional.linear(tokens, weight[dim:], shift[dim:]).view(
            rows, length, 2, self.heads, dim // self.heads
        )
        seen = list(split.permute(2, 0, 3, 1, 4))  # each (rows, heads, length, dim / heads)
        key, value = seen if before is None else self._joined(seen, before)
        query = query.view(rows, self.heads, 1, dim // self.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.out(mixed.reshape(rows, 1, dim))

    def _joined(self, seen: list[Tensor], before: Tensor) -> list[Tensor]:
        """Put keys and values of the tokens `before` before those of each row.

        Args:
            seen: Keys and values, each (rows, heads, length, dim / heads).
            before: (1, common, dim).

        Returns:
            Keys and values, each (rows, heads, common + length, dim / heads).
        """
        _, common, dim = before.shape
        project = functional.linear(before, self.project.weight[dim:], self.project.bias[dim:])
        split = project.view(1, common, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return [torch.cat([one.expand(len(own), -1, -1, -1), own], 2) for one, own in zip(split, seen, strict=True)]


class PreNorm(nn.Module):
    """A transformer layer that normalises the input of attention and of the perceptron.

    Args:
        dim: Dimension of the tokens.
        heads: Attention heads; must divide `dim`.
        hidden: Hidden units of the perceptron.
        dropout: Applied to the outputs of attention and perceptron.

    References:
        Xiong et al., On Layer Normalization in the Transformer Architecture, 2020.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: Dropout):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.attention = SelfAttention(dim, heads)
        self.wide, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(
        self, tokens: Tensor, bias: Tensor, place: Tensor | None = None, before: Tensor | None = None
    ) -> Tensor:
        """Apply the layer to all tokens, or to one token of each row.

        Args:
            tokens: (rows, length, dim).
            bias: (rows, 1, length, common + length), added to the attention scores.
            place: (rows,) int64, the column of the one token of each row to compute; None for all tokens.
            before: (1, common, dim) inputs of the layer at tokens that precede those of each row; None for none.

        Returns:
            (rows, length, dim), or with `place` (rows, 1, dim).
        """
        normed = self.norms[0](tokens)
        before = None if before is None else self.norms[0](before)
        if place is None:
            mixed = self.attention(normed, bias, before)
        else:
            every = torch.arange(place.shape[0], device=place.device)
            mixed = self.attention.at(normed, bias[every, :, place].unsqueeze(2), place, before)
            tokens = tokens[every, place].unsqueeze(1)
        return self.join(tokens, mixed)

    def join(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Add the output of attention, then that of the perceptron.

        Args:
            tokens: (rows, length, dim), the input of the layer.
            mixed: (rows, length, dim), the output of attention.

        Returns:
            (rows, length, dim).
        """
        tokens = tokens + self.dropout(mixed)
        hidden = functional.gelu(self.wide(self.norms[1](tokens)))
        return tokens + self.dropout(self.narrow(hidden))


class LiGR(PreNorm):
    """A transformer layer with gated residuals and a SwiGLU perceptron.

    What attention and perceptron add is multiplied by a gate, the sigmoid of a linear map of what it is added to.

    References:
        eSASRec, arXiv 2508.06450, after LiGR, arXiv 2502.03417.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: Dropout):
        super().__init__(dim, heads, hidden, dropout)
        self.wide, self.gate = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.narrow = nn.Linear(hidden, dim, bias=False)
        self.gates = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)])

    def join(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Add the gated outputs of attention and perceptron. Shapes as of `PreNorm.join`."""
        tokens = tokens + self.gates[0](tokens).sigmoid() * self.dropout(mixed)
        normed = self.norms[1](tokens)
        hidden = functional.silu(self.gate(normed)) * self.wide(normed)
        return tokens + self.gates[1](tokens).sigmoid() * self.dropout(self.narrow(hidden))


class Recurrent(nn.Module):
    """A gated recurrent unit over each run of a packed row.

    Args:
        dim: Dimension of the tokens and of the hidden state.
        layers: Layers.
        dropout: Dropout rate between layers.

    References:
        Hidasi et al., Session-based Recommendations with Recurrent Neural Networks (GRU4Rec), 2016.
    """

    def __init__(self, dim: int, layers: int, dropout: float):
        super().__init__()
        self.gru = nn.GRU(dim, dim, layers, batch_first=True)
        self.dropout = RowDropout(dropout)

    def forward(self, tokens: Tensor, first: Tensor) -> Tensor:
        """Run the recurrent unit over each run.

        Args:
            tokens: (rows, length, dim).
            first: (rows, length) int64, the column at which the run of each token begins.

        Returns:
            (rows, length, dim).
        """
        if torch.compiler.is_exporting():  # last windows: each row has one run, and padding after it has no effect
            return self.gru(tokens)[0]
        column = torch.arange(tokens.shape[1], device=first.device).expand_as(first)
        place = column - first
        # Unpack: one padded row for each run, (runs, longest run, dim).
        run = (place == 0).flatten().cumsum(0) - 1
        lengths = torch.bincount(run)
        empty = tokens.new_zeros(len(lengths), int(lengths.max()), tokens.shape[2])
        cells, lengths = (run, place.flatten()), lengths.cpu()
        for layer, weights in enumerate(self.gru.all_weights):
            # Dropout is applied here, between the layers: torch's own depends on how rows are divided.
            values = (self.dropout(tokens) if layer else tokens).flatten(0, 1)
            # torch's packed sequences skip the steps after the end of a run.
            packed = pack_padded_sequence(
                empty.index_put(cells, values), lengths, batch_first=True, enforce_sorted=False
            )
            start = tokens.new_zeros(1, len(lengths), tokens.shape[2])
            states, _ = torch.gru(packed.data, packed.batch_sizes, start, weights, True, 1, 0.0, self.training, False)
            done = PackedSequence(states, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
            padded, _ = pad_packed_sequence(done, batch_first=True)
            tokens = padded[cells].view_as(tokens)
        return tokens


class DecayedMean(nn.Module):
    """A linear map of the weighted mean of the tokens so far; weights decay exponentially with the tokens since.

    The map starts as the identity.

    Args:
        dim: Dimension of the tokens.
        half_life: Tokens after which the weight of a token is halved.
    """

    def __init__(self, dim: int, half_life: float):
        super().__init__()
        self.half_life = half_life
        self.out = nn.Linear(dim, dim)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, visible: Tensor, there: Tensor) -> Tensor:
        """Average the tokens that each token can see.

        Args:
            tokens: (rows, length, dim).
            visible: (rows, length, length) bool, whether a token (second dimension) can see another (third).
            there: (rows, length) bool, whether a token holds an item. Others have no weight.

        Returns:
            (rows, length, dim); the map of zero if no token has a weight.
        """
        column = torch.arange(tokens.shape[1], device=tokens.device)
        recency_decay = 0.5 ** ((column.unsqueeze(1) - column).clamp(min=0) / self.half_life)  # (length, length)
        weights = recency_decay * (visible & there.unsqueeze(1))  # (rows, length, length)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-12)
        return self.out(weights.to(tokens.dtype) @ tokens)
