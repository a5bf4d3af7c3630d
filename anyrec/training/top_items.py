"""The items that the present model scores highest for the user of each positive, from which a sampler can draw."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.contracts import HistoryEncoder
from anyrec.core.windows import Batch
from anyrec.data.positives import Positives
from anyrec.model.represent import represent_rows, vectors_for_histories
from anyrec.model.scoring import CELLS_AT_A_TIME, score_blocks
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.samples import TrainingData


class TopItems:
    """Ranks all items for the users of a batch, without the items that they have.

    The vectors of users are those of the present weights. The vectors of all items are kept for `refresh` steps, as in
    the index of the reference. Dropout is off in both.

    References:
        Xiong et al., Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval, 2021.
    """

    def __init__(self, model: TwoTower, data: TrainingData, positives: Positives, k: int, refresh: int):
        """
        Args:
            model: The model that is trained.
            data: The training data on the device.
            positives: The items that each user has.
            k: Items of each list, at most the number of items.
            refresh: Steps for which the vectors of the items are kept.
        """
        self.model, self.data, self.positives, self.k, self.refresh = model, data, positives, k, refresh
        self.restart()

    def restart(self) -> None:
        """Compute the vectors of the items in the next step, whatever their age.

        Each epoch begins with it, so that a resumed training equals one without interruption.
        """
        self._steps = 0

    @torch.no_grad()
    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the lists of a step's positives.

        Args:
            batch: The positives. Their histories are those before each positive.

        Returns:
            (positives, k) item rows in descending order of score, and (positives, k) bool, False past the end of a list
            that has fewer items.
        """
        self.model.eval()
        if self._steps % self.refresh == 0:
            columns, count = self.data.items, self.data.num_items
            self._items = represent_rows(self.model, "item", columns, count)
            self._for_histories = vectors_for_histories(self.model, columns, self._items)
        self._steps += 1
        one = batch.one_of_each()
        users = self.data.samples.users[one.rows]
        vectors = self.model.represent("user", self.data.users, users, precomputed=self._histories(one))
        size = max(1, CELLS_AT_A_TIME // self.data.num_items)
        lists = [self._best(*part) for part in zip(users.split(size), vectors.split(size), strict=True)]
        self.model.train()
        items, there = (torch.cat(parts) for parts in zip(*lists, strict=True))
        return (items, there) if batch.owners is None else (items[batch.owners], there[batch.owners])

    def _histories(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the users' features that are made of item vectors, before each positive of a batch."""
        if batch.windows is None or self._for_histories is None:
            return {}
        encoders: dict[str, HistoryEncoder] = self.model.user.histories
        columns = self.data.users
        return {name: one.before(batch, columns[name].values, self._for_histories) for name, one in encoders.items()}

    def _best(self, users: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lists of some users, as `of` does. users: (batch,) rows; vectors: (batch, ...)."""
        scores = score_blocks(self.model, vectors, self._items).float()
        had = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
        best = scores.masked_fill(self.positives.fill(users, had, True, False), -torch.inf).topk(self.k, dim=1)
        return best.indices, best.values > -torch.inf
