"""The layers that read runs of tokens: transformer blocks, a recurrent one, a fading mean.

All take tokens `(rows, length, dim)` and `visible: (rows, length, length)` bool, which token may look at which.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.parallel import generator

MASK_VALUE = -1e9
STEPS = 256
POOL = 2
"""Masks are cut out of so many times the values of the largest."""


class Dropout(nn.Module):
    """Silences a share of the values in training, to the nearest 1/256, and scales up the rest.

    On a processor random numbers cost more than the layers between: a pool of them is made once an epoch, and each
    mask is cut out of it at a random place. One instance is shared by all layers.
    """

    def __init__(self, share: float):
        super().__init__()
        self.below = round(share * STEPS)
        self.pools: dict[torch.dtype, Tensor] = {}

    def train(self, mode: bool = True) -> Dropout:
        self.pools = {}
        return super().train(mode)

    def ready(self, count: int) -> None:
        """Makes the pool for up to `count` values at a time, where it is not yet made: before threads that would each make one."""
        pool = self.pools.get(torch.float32)
        if self.training and self.below and (pool is None or len(pool) < POOL * count):
            self.pools = {torch.float32: self._pool(POOL * count)}

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.below:
            return values
        if values.is_cuda:
            return functional.dropout(values, self.below / STEPS)
        count = values.numel()
        self.ready(count)
        pool = self.pools.get(values.dtype)
        if pool is None:
            pool = self.pools[values.dtype] = self.pools[torch.float32].to(values.dtype)
        start = int(torch.randint(len(pool) - count + 1, (), generator=generator()))
        return values * pool[start : start + count].view_as(values)

    def _pool(self, count: int) -> Tensor:
        """(count,) 0, or what makes up for the zeros; eight of them from one draw."""
        words = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[:count] >= self.below
        return keep * (STEPS / (STEPS - self.below))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """tokens: (rows, length, dim); bias: (rows, 1, length, length), added to the scores."""
        rows, length, dim = tokens.shape
        split = self.project(tokens).view(rows, length, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.out(mixed.transpose(1, 2).reshape(rows, length, dim))

    def at(self, tokens: Tensor, bias: Tensor, place: Tensor) -> Tensor:
        """The same for one token a row: place (rows,); bias (rows, 1, 1, length) -> (rows, 1, dim)."""
        rows, length, dim = tokens.shape
        weight, shift = self.project.weight, self.project.bias
        query = functional.linear(tokens[torch.arange(rows, device=place.device), place], weight[:dim], shift[:dim])
        split = functional.linear(tokens, weight[dim:], shift[dim:]).view(
            rows, length, 2, self.heads, dim // self.heads
        )
        key, value = split.permute(2, 0, 3, 1, 4)
        query = query.view(rows, self.heads, 1, dim // self.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return self.out(mixed.reshape(rows, 1, dim))


class PreNorm(nn.Module):
    """Attention and a two-layer perceptron, each normalised before and added (Xiong et al., 2020)."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: Dropout):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.attention = Attention(dim, heads)
        self.wide, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, tokens: Tensor, bias: Tensor, place: Tensor | None = None) -> Tensor:
        """place: (rows,) the one token a row that is wanted, by default all."""
        normed = self.norms[0](tokens)
        if place is None:
            mixed = self.attention(normed, bias)
        else:
            every = torch.arange(len(place), device=place.device)
            mixed = self.attention.at(normed, bias[every, :, place].unsqueeze(2), place)
            tokens = tokens[every, place].unsqueeze(1)
        return self.join(tokens, mixed)

    def join(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        tokens = tokens + self.dropout(mixed)
        hidden = functional.gelu(self.wide(self.norms[1](tokens)))
        return tokens + self.dropout(self.narrow(hidden))


class Gated(PreNorm):
    """LiGR: what is added passes a gate made from what it is added to, and the perceptron is SwiGLU
    (eSASRec, arXiv 2508.06450, after LiGR, arXiv 2502.03417)."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: Dropout):
        super().__init__(dim, heads, hidden, dropout)
        self.wide, self.gate = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.narrow = nn.Linear(hidden, dim, bias=False)
        self.gates = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)])

    def join(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        tokens = tokens + self.gates[0](tokens).sigmoid() * self.dropout(mixed)
        normed = self.norms[1](tokens)
        hidden = functional.silu(self.gate(normed)) * self.wide(normed)
        return tokens + self.gates[1](tokens).sigmoid() * self.dropout(self.narrow(hidden))


class Recurrent(nn.Module):
    """A gated recurrent unit over each run by itself (GRU4Rec, Hidasi et al., 2016)."""

    def __init__(self, dim: int, layers: int, dropout: float):
        super().__init__()
        self.gru = nn.GRU(dim, dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, tokens: Tensor, first: Tensor) -> Tensor:
        """first: (rows, length), the column at which each token's run begins."""
        column = torch.arange(tokens.shape[1], device=first.device).expand_as(first)
        place = column - first
        run = (place == 0).flatten().cumsum(0) - 1
        lengths = torch.bincount(run)
        padded = tokens.new_zeros(len(lengths), int(lengths.max()), tokens.shape[2])
        cells = (run, place.flatten())
        padded = padded.index_put(cells, tokens.flatten(0, 1))
        # Runs of one length are side by side, so that the steps past a run's end are not taken.
        packed = nn.utils.rnn.pack_padded_sequence(padded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return states[cells].view_as(tokens)


class FadingMean(nn.Module):
    """The mean of the tokens so far, each weighing half as much for every `half_life` that came after it."""

    def __init__(self, dim: int, half_life: float):
        super().__init__()
        self.half_life = half_life
        self.out = nn.Linear(dim, dim)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, visible: Tensor, there: Tensor) -> Tensor:
        """visible: (rows, length, length); there: (rows, length), tokens that hold an event."""
        column = torch.arange(tokens.shape[1], device=tokens.device)
        age = (column.unsqueeze(1) - column).clamp(min=0)
        weights = (0.5 ** (age / self.half_life)) * (visible & there.unsqueeze(1))
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-12)
        return self.out(weights.to(tokens.dtype) @ tokens)
