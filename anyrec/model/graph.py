"""Propagation of id vectors over the graph of users and items, for id encoders with the option `graph_layers`.

References:
    He et al., LightGCN, 2020 (arXiv 2002.02126): E(k+1) = D^-1/2 A D^-1/2 E(k); the scored vectors are the mean of E(0)
    to E(K).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from anyrec.core.config import Config
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.types import AutogradContext
from anyrec.data.dataset import Dataset
from anyrec.data.ids import SIDES, Side, rows_of
from anyrec.model.dim_shares import WHERE as SHARES
from anyrec.model.towers import IDENTITY, EntityTower

WHERE = "/features/identity/graph_layers"


class GraphEncoder(Protocol):
    """What the graph needs of an id encoder.

    Attributes:
        vocabulary: The ids.
        start: (ids, dim) float, the learned vectors E(0), in the order of `vocabulary`.
        propagate: Returns the mean of the layers, (ids, dim). None before `join_graph`, and in a loaded model.
        graph_layers: Number of propagation steps K; 0 for none.
    """

    vocabulary: pa.Array
    start: Tensor
    propagate: Callable[[], Tensor] | None

    @property
    def graph_layers(self) -> int:
        """Number of propagation steps."""
        ...


class Graph:
    """The bipartite graph of users and items with an edge for each distinct pair of the training positives.

    One pass computes the vectors of both sides. The result is reused until a backward pass goes through it, since the
    weights change next, until gradients are switched on or off, or until the weights get another version, as by
    `load_state_dict`.

    Attributes:
        start: E(0) of each side, (rows, dim).
        layers: Number of propagation steps K.
        neighbours: (2 * edges,) int64, columns of the normalised adjacency matrix in CSR format.
        offsets: (users + items + 1,) int64, row offsets of that matrix.
        weights: (2 * edges,) float, its values.
    """

    def __init__(self, users: Tensor, items: Tensor, pairs: tuple[np.ndarray, np.ndarray], layers: int):
        """
        Args:
            users: (users, dim) float leaf, E(0) of the users.
            items: (items, dim) float leaf, E(0) of the items.
            pairs: User rows and item rows of the edges, (edges,) each; repeats count once.
            layers: Number of propagation steps K.
        """
        self.start: dict[Side, Tensor] = {"user": users, "item": items}
        self.layers = layers
        self.neighbours, self.offsets, weights = _normalised(pairs, len(users), len(items))
        self.weights = weights.to(users.dtype)
        self._kept: tuple[tuple[bool, int, int], dict[Side, Tensor]] | None = None

    def vectors(self, side: Side) -> Tensor:
        """Return the mean of the layers 0 to K of one side, (rows, dim)."""
        users, items = self.start["user"], self.start["item"]
        key = (torch.is_grad_enabled(), users._version, items._version)
        if self._kept is None or self._kept[0] != key:
            vectors = _Mean.apply(torch.cat([users, items]), self)
            self._kept = key, {"user": vectors[: len(users)], "item": vectors[len(users) :]}
        return self._kept[1][side]

    def forget(self) -> None:
        """Discard the result of the last pass."""
        self._kept = None

    def mean_of_layers(self, start: Tensor) -> Tensor:
        """Return (1 / (K + 1)) * sum over k = 0 to K of (D^-1/2 A D^-1/2)^k start.

        Args:
            start: (users + items, dim) float.

        Returns:
            (users + items, dim) float.
        """
        if self.weights.device != start.device:
            self.neighbours, self.offsets, self.weights = (
                part.to(start.device) for part in (self.neighbours, self.offsets, self.weights)
            )
        layer, total = start.contiguous(), start.clone()
        for _ in range(self.layers):
            # A weighted sum of rows is the sparse product. ML-1M, 64 dimensions, one core: 7 ms; torch's CSR product
            # takes 27 ms, COO 71 ms.
            layer = functional.embedding_bag(
                self.neighbours,
                layer,
                self.offsets,
                mode="sum",
                per_sample_weights=self.weights,
                include_last_offset=True,
            )
            total += layer
        return total.div_(self.layers + 1)


class _Mean(torch.autograd.Function):
    """`Graph.mean_of_layers` with its gradient.

    The matrix is symmetric, so the gradient is the same function of the incoming gradient. (Backward through torch's
    CSR product: 295 ms, on the data of `mean_of_layers`.)
    """

    @staticmethod
    def forward(ctx: AutogradContext, start: Tensor, graph: Graph) -> Tensor:
        """Return the mean of the layers, (users + items, dim). start: (users + items, dim)."""
        ctx.graph = graph
        return graph.mean_of_layers(start)

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of `start`, (users + items, dim)."""
        ctx.graph.forget()  # a fused optimizer changes the weights without changing their version
        return ctx.graph.mean_of_layers(gradients[0]), None


def join_graph(config: Config, towers: dict[Side, EntityTower], dataset: Dataset, positives: np.ndarray) -> None:
    """Connect the id encoders of both sides to one graph of the training positives.

    Without `graph_layers` on either side nothing changes.

    Args:
        config: Complete config.
        towers: The tower of each side, with its layers created.
        dataset: The data.
        positives: (rows,) the positive training interactions.

    Raises:
        ConfigError: If `graph_layers` or the size of the vectors differs between the sides, or the optimizer has
            options for tables that are updated row by row.
    """
    layers = {side: _layers(towers[side]) for side in SIDES}
    if not any(layers.values()):
        return
    if layers["user"] != layers["item"]:
        counts = " and ".join(f"{number or 0} on the {side} side" for side, number in layers.items())
        absent = [f"the {side}s have no identity feature" for side, number in layers.items() if number is None]
        what = f"the layers are {counts}{''.join(f' ({part})' for part in absent)}, but one graph joins both sides."
        hint = "Set it under the shared 'features', with identity on for both, or leave it out."
        raise ConfigError(Fault(WHERE, what, hint))
    options = config.training.optimizer
    if options.sparse is True or options.max_norm is not None:
        name = "sparse" if options.sparse is True else "max_norm"
        what = "graph_layers changes every id's vector at each step, so no update is sparse or limited to some rows."
        raise ConfigError(Fault(f"/training/optimizer/{name}", what, "Leave it out, or graph_layers."))
    user, item = _identity(towers["user"]), _identity(towers["item"])
    if user.start.shape[1] != item.start.shape[1]:
        sizes = f"{user.start.shape[1]} dimensions for users and {item.start.shape[1]} for items"
        what = f"the share of 'identity' is {sizes}, and one graph joins both (graph_layers)."
        raise ConfigError(Fault(f"{SHARES}/identity", what, "Leave it out of `dim_ratio`: ids then have all of it."))
    users = rows_of(dataset.ids("user"), user.vocabulary)[dataset.user_rows[positives]]
    items = rows_of(dataset.ids("item"), item.vocabulary)[dataset.item_rows[positives]]
    graph = Graph(user.start, item.start, (users, items), user.graph_layers)
    user.propagate, item.propagate = partial(graph.vectors, "user"), partial(graph.vectors, "item")


def _identity(tower: EntityTower) -> GraphEncoder:
    """Return the id encoder of a tower that has one."""
    return cast(GraphEncoder, dict(tower.named_encoders())[IDENTITY])


def _layers(tower: EntityTower) -> int | None:
    """Return `graph_layers` of a tower's id encoder; None if that feature is switched off."""
    return _identity(tower).graph_layers if IDENTITY in tower.features else None


def _normalised(pairs: tuple[np.ndarray, np.ndarray], users: int, items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return D^-1/2 A D^-1/2 of the distinct pairs in CSR format.

    An id without a training positive has an empty row, so its result is its own vector divided by K + 1.

    Args:
        pairs: User rows and item rows, (edges,) each.
        users: Number of users.
        items: Number of items. Row `users + i` of the matrix is item i.

    Returns:
        Columns (2 * edges,), row offsets (users + items + 1,), and values (2 * edges,) float64.
    """
    left, right = np.divmod(np.unique(pairs[0] * items + pairs[1]), items)
    rows, columns = np.concatenate([left, users + right]), np.concatenate([users + right, left])
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    degrees = np.bincount(rows, minlength=users + items)
    values = (degrees[rows] * degrees[columns]).astype(np.float64) ** -0.5
    offsets = np.concatenate([[0], np.cumsum(degrees)])
    return torch.from_numpy(columns), torch.from_numpy(offsets), torch.from_numpy(values)
