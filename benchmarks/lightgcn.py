"""LightGCN in a few lines of torch, a peer of the arena on data without order.

Users and items have a vector each. Vectors are averaged over the graph of interactions, normalised by the square roots
of both degrees, and the vectors after 0, 1, ..., `layers` steps are averaged. The score is the cosine divided by a
temperature. The loss is the softmax over the whole catalogue, summed over a user's items, instead of BPR: it needs a
hundredth of the epochs.

References:
    X. He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020.
    J. Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, TOIS 2024 (cosine and softmax).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from anyrec.data.pairs import Pairs

LEARNING_RATE = 0.02
CELLS = 16_000_000
"""Scores of one step: it bounds the number of users of the step."""
EVERY = 20
"""Steps between validations."""
PATIENCE = 3
"""Validations in a row without a better metric after which the training stops."""


@dataclass(frozen=True)
class Options:
    """Options of LightGCN.

    Attributes:
        layers: Steps of averaging over the graph.
        temperature: Divisor of the cosines.
        dim: Length of the vectors.
        steps: Most steps of the optimizer.
    """

    layers: int = 2
    temperature: float = 0.2
    dim: int = 64
    steps: int = 400


class LightGCN(nn.Module):
    """The vectors and the graph."""

    def __init__(self, pairs: Pairs, num_items: int, options: Options, seed: int, device: str | torch.device = "cpu"):
        """
        Args:
            pairs: The training positives.
            num_items: Number of items.
            options: The options.
            seed: Seed of the initial vectors.
            device: Where it computes.
        """
        super().__init__()
        self.options, self.num_users = options, len(pairs.offsets) - 1
        torch.manual_seed(seed)
        start = torch.randn(self.num_users + num_items, options.dim) / options.dim**0.5
        self.vectors = nn.Parameter(start.to(device))
        self.graph = _graph(pairs, num_items).to(device)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return (users, dim) and (items, dim), all of norm 1."""
        layer, total = self.vectors, self.vectors
        for _ in range(self.options.layers):
            layer = _Propagate.apply(self.graph, layer)
            total = total + layer
        unit = functional.normalize(total, dim=1)
        return unit[: self.num_users], unit[self.num_users :]


class _Propagate(torch.autograd.Function):
    """The product with the graph. It is symmetric, so its gradient is the same product."""

    @staticmethod
    def forward(ctx, graph: Tensor, layer: Tensor) -> Tensor:
        ctx.graph = graph
        return graph @ layer

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, ctx.graph @ grad_outputs[0]


def _graph(pairs: Pairs, num_items: int) -> Tensor:
    """Return the symmetric sparse matrix of (users + items) rows: 1 / sqrt(degree of user * of item) for each pair."""
    users, items = pairs.owners(), pairs.items
    num_users = len(pairs.offsets) - 1
    degree = np.bincount(np.append(users, items + num_users), minlength=num_users + num_items)
    weight = 1 / np.sqrt(degree[users] * degree[items + num_users])
    above = sparse.csr_matrix((weight, (users, items + num_users)), (len(degree), len(degree)))
    whole = (above + above.T).tocsr().astype(np.float32)
    parts = (torch.from_numpy(part) for part in (whole.indptr, whole.indices, whole.data))
    with warnings.catch_warnings():  # torch calls its sparse tensors experimental
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(*parts, size=whole.shape, check_invariants=True)


def train(
    pairs: Pairs,
    num_items: int,
    options: Options,
    seed: int = 0,
    validate: Callable[[Callable[[np.ndarray], Tensor]], float] | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Callable[[np.ndarray], Tensor], int]:
    """Train, and stop when the validation metric no longer increases.

    Args:
        pairs: The training positives.
        num_items: Number of items.
        options: The options.
        seed: Seed of the initial vectors and of the order of users.
        validate: Returns the metric of a function that scores users; None to make all `options.steps`.
        device: Where it computes.

    Returns:
        The function that maps user rows (batch,) to (batch, items) scores, and the number of steps of the best model.
    """
    net = LightGCN(pairs, num_items, options, seed, device)
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    active = torch.from_numpy(np.flatnonzero(pairs.counts()))
    best, best_step, waited, step = -1.0, 0, 0, 0
    kept = scorer(net)
    while step < options.steps and waited < PATIENCE:
        for batch in active[torch.randperm(len(active))].split(max(1, CELLS // num_items)):
            optimizer.zero_grad()
            _loss(net, pairs, batch.numpy()).backward()
            optimizer.step()
            step += 1
            if validate is not None and step % EVERY == 0:
                now = scorer(net)
                found = validate(now)
                waited += 1
                if found > best:
                    best, best_step, waited, kept = found, step, 0, now
            if step >= options.steps or waited >= PATIENCE:
                break
    return (kept, best_step) if validate is not None else (scorer(net), step)


def _loss(net: LightGCN, pairs: Pairs, batch: np.ndarray) -> Tensor:
    """Return the mean over the items of the users `batch` of the softmax over the catalogue."""
    users, items = net()
    places, wanted = pairs.take(batch)
    rows, places, wanted = (torch.from_numpy(part).to(users.device) for part in (batch, places, wanted))
    logits = users[rows] @ items.T / net.options.temperature
    return (logits.logsumexp(1)[places] - logits[places, wanted]).mean()


def scorer(net: LightGCN) -> Callable[[np.ndarray], Tensor]:
    """Return the function that scores users with the present vectors."""
    with torch.no_grad():
        users, items = (part.clone() for part in net())
    return lambda rows: users[torch.from_numpy(rows).to(users.device)] @ items.T
