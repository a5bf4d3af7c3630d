"""The vectors of a training step: its users and its items, each distinct record encoded once."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.contracts import Negatives
from anyrec.core.row_masks import part_of
from anyrec.core.windows import Batch, PackedSequences
from anyrec.data.ids import Side
from anyrec.model.towers import PrecomputedVectors
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.catalogue_slices import CatalogueSlices
from anyrec.training.division import Division, Held, Own, only_ids
from anyrec.training.samples import TrainingData


class StepVectors:
    """Encodes the users and items of training steps.

    Args:
        model: The model that is trained.
        data: The training data on the device.
        division: The share of this process.
        slices: The slices of the catalogue, if the loss is computed over them.
    """

    def __init__(self, model: TwoTower, data: TrainingData, division: Division, slices: CatalogueSlices | None = None):
        self.model, self.data, self.division, self.slices = model, data, division, slices

    def encode(self, side: Side, rows: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Represent some rows of one side.

        If the side has features other than the id, each distinct row is encoded once.

        Args:
            side: "user" or "item".
            rows: (batch,) row numbers, known to all processes.
            wanted: (own,) which of the rows to return; None for all.

        Returns:
            (batch, ...) or (own, ...), what the interaction reads.
        """
        if only_ids(self.model.tower(side)):
            with part_of(wanted, len(rows)):
                return self._represent(side, rows if wanted is None else rows[wanted])
        distinct, place = torch.unique(rows, return_inverse=True)
        return self._distinct(side, distinct).index_select(0, place if wanted is None else place[wanted])

    def items(
        self, items: Tensor, drawn: Negatives | None, batch: Batch, held: Held, own: Own, from_batch: bool
    ) -> tuple[Tensor, Tensor, PrecomputedVectors]:
        """Represent the items of a step, each distinct one once.

        Args:
            items: (batch,) rows of the positives.
            drawn: The negatives; None for the whole catalogue.
            batch: The positives of the step.
            held: The positives whose users this process encodes.
            own: The positives whose loss this process computes.
            from_batch: Whether the negatives are the positives' items, and if `own` are whole groups, theirs.

        Returns:
            The own positives (own, ...), the negatives (groups or own, negatives, ...), and the held users' features
            that are made of item vectors. With slices, the negatives are the items of the own slice, (1, slice, ...),
            and the positives are returned if a head reads them.
        """
        if drawn is None and self.slices is not None:
            return self._slice(self.slices, own.of(items), held)
        if drawn is None:
            every = torch.arange(self.data.num_items, device=items.device)
            vectors = self._distinct("item", every)
            histories = self._histories(held, held.batch.windows, vectors, every)
            return vectors.index_select(0, own.of(items)), vectors.unsqueeze(0), histories
        shape = (-1, drawn.items.shape[1])
        if from_batch:
            rows, wanted = items, None if own.whole is None else own.places
        else:
            rows, wanted = torch.cat([items, drawn.items.flatten()]), own.cells(drawn.items, len(items))
        histories: PrecomputedVectors = {}
        if batch.windows is None or held.batch.windows is None:
            vectors = self.encode("item", rows, wanted)
        else:  # the items of the histories are encoded with the others, and the windows index the distinct rows
            tokens, windows = batch.windows.items.flatten().clamp(min=0), held.batch.windows
            distinct, place = torch.unique(torch.cat([rows, tokens]), return_inverse=True)
            found = self._distinct("item", distinct)
            places = torch.searchsorted(distinct, windows.items.clamp(min=0))
            windows = windows.with_items(torch.where(windows.items >= 0, places, -1))
            histories = self._histories(held, windows, found, distinct)
            place = place[: len(rows)]
            vectors = found[place if wanted is None else place[wanted]]
        if from_batch:
            return vectors if own.whole is not None else own.of(vectors), vectors.unflatten(0, shape), histories
        count = len(items) if own.places is None else len(own.places)
        return vectors[:count], vectors[count:].unflatten(0, shape), histories

    def _slice(self, slices: CatalogueSlices, items: Tensor, held: Held) -> tuple[Tensor, Tensor, PrecomputedVectors]:
        """Represent the items of the own slice, as `items` does. items: (own,) rows of the positives."""
        vectors, windows, histories = slices.vectors(), held.batch.windows, {}
        self.division.note_penalty("item", len(vectors))
        if windows is not None:
            distinct, place = torch.unique(windows.items.clamp(min=0), return_inverse=True)
            windows = windows.with_items(torch.where(windows.items >= 0, place, -1))
            histories = self._histories(held, windows, slices.of(vectors, distinct), distinct)
        positives = slices.of(vectors, items) if self.model.heads else vectors[:0]
        return positives, vectors.unsqueeze(0), histories

    def users(
        self, users: Tensor, batch: Batch, held: Held, own: Own, histories: PrecomputedVectors, shared: bool
    ) -> Tensor:
        """Represent the users of a step.

        Args:
            users: (batch,) rows of the positives' users.
            batch: The positives of the step.
            held: The positives whose users this process encodes.
            own: The positives whose loss this process computes.
            histories: The features of the held users that are made of item vectors.
            shared: Whether the positives of an owner share one vector.

        Returns:
            (own positives, ...), or if `shared` (held owners, ...).
        """
        if not histories:
            return self.encode("user", users, own.places)
        owners = held.batch.owners
        vectors = self.division.users(
            held,
            self.data.samples.users[batch.one_of_each().rows],
            lambda rows: self.model.represent("user", self.data.users, rows, precomputed=histories),
        )
        if shared:
            return vectors
        return self.division.of_own(held, own, vectors if owners is None else vectors.index_select(0, owners))

    def _histories(
        self, held: Held, windows: PackedSequences | None, vectors: Tensor, rows: Tensor
    ) -> PrecomputedVectors:
        """Compute the held users' features that are made of item vectors, before each positive.

        Args:
            held: The positives.
            windows: Their tokens; their items index `rows`.
            vectors: (items, ...) representations of the items `rows`.
            rows: (items,) item rows.
        """
        if windows is None:
            return {}
        model, columns = self.model, self.data.users
        if model.interaction.reads == "tokens":  # histories read vectors after the fusion
            vectors = self.division.joined("item", rows, lambda some: model.item.encode(self.data.items, some))
        batch = held.batch.one_of_each().with_windows(windows)
        with part_of(*held.windows):
            return {
                name: one.before(batch, columns[name].values, vectors) for name, one in model.user.histories.items()
            }

    def _distinct(self, side: Side, rows: Tensor) -> Tensor:
        """Represent distinct rows, each process a share of them."""
        return self.division.joined(side, rows, lambda some: self._represent(side, some))

    def _represent(self, side: Side, rows: Tensor) -> Tensor:
        return self.model.represent(side, self.data.users if side == "user" else self.data.items, rows)


def score_groups(model: TwoTower, users: Tensor, items: Tensor, own: Own) -> Tensor:
    """Score users against the negatives of their groups.

    Args:
        model: The model.
        users: (own, ...).
        items: (groups, negatives, ...); each group is for an equal run of the users.
        own: The positives of the users.

    Returns:
        (own, negatives).
    """
    groups = items.shape[0]
    if groups == 1:
        return model.score(users, items[0])
    if groups == len(users):
        return model.score(users, items)
    if model.interaction.factorised:
        left = model.interaction.user_vectors(users)
        right = model.interaction.item_vectors(items)
        return torch.bmm(left.view(groups, -1, left.shape[-1]), right.transpose(1, 2)).flatten(0, 1)
    with part_of(*own.within):
        return torch.cat([model.score(part, every) for part, every in zip(users.chunk(groups), items, strict=True)])
