"""Who has what in training: look-ups and exact draws of what a user does not have, vectorised on the device."""

from __future__ import annotations

import torch
from torch import Tensor

DENSE_CELLS = 256 << 20
"""Up to so many user-item cells, membership is a table of one byte each, item by item: ten times
quicker than a search."""


class Positives:
    """The training positives of every user.

    items: (pairs,) each user's distinct item rows, ascending, users one after another; offsets: (users + 1,).
    popularity: (items,) how many users have each item.
    """

    def __init__(self, user_rows: Tensor, item_rows: Tensor, num_users: int, num_items: int):
        """user_rows, item_rows: (positives,) int64; repeated pairs count once."""
        self.num_users, self.num_items = num_users, num_items
        self.keys = torch.unique(user_rows * num_items + item_rows)
        users = torch.div(self.keys, num_items, rounding_mode="floor")
        self.items = self.keys - users * num_items
        counts = torch.bincount(users, minlength=num_users)
        self.offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self.counts = counts
        self.popularity = torch.bincount(self.items, minlength=num_items)
        # Item p_j, the j-th of a user, has p_j - j items before it that the user lacks; these keys are sorted too.
        place = torch.arange(len(self.items), device=self.items.device) - self.offsets[users]
        self._gaps = users * (num_items + 1) + self.items - place
        self._table: Tensor | None = None
        if num_users * num_items <= DENSE_CELLS:
            self._table = torch.zeros(num_users * num_items, dtype=torch.bool, device=self.keys.device)
            self._table[self.items * num_users + users] = True

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each user has each item: users (batch,); items (n,), (batch, n), or (groups, n), each group's shared by an
        equal run of the users -> (batch, n) bool."""
        if self._table is not None and items.dim() == 1:
            shared = self._table.view(self.num_items, self.num_users).index_select(0, items)
            return shared.T.contiguous().index_select(0, users)
        if items.dim() == 2 and len(items) != len(users):
            run = len(users) // len(items)
            keys = users.view(-1, run, 1) + items.unsqueeze(1) * self.num_users
            keys = keys.view(len(users), -1)
        else:
            keys = users.unsqueeze(1) + items * self.num_users
        if self._table is not None:
            return self._table.index_select(0, keys.flatten()).view(keys.shape)
        users_again = keys % self.num_users
        keys = users_again * self.num_items + torch.div(keys, self.num_users, rounding_mode="floor")
        if not len(self.keys):
            return torch.zeros_like(keys, dtype=torch.bool)
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return self.keys[place] == keys

    def draw_outside(self, users: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(batch, count) items drawn uniformly, with replacement, from those each user lacks; and (batch, 1) bool
        which users lack any. No rejection: the r-th lacking item is found by its rank, so it is exact for users who
        have almost everything."""
        lacking = (self.num_items - self.counts[users]).unsqueeze(1)
        draws = torch.rand(len(users), count, generator=generator, device=users.device, dtype=torch.float64)
        rank = (draws * lacking).long().clamp(min=0)
        rank = torch.minimum(rank, (lacking - 1).clamp(min=0))
        if not len(self._gaps):
            return rank, lacking > 0
        keys = users.unsqueeze(1) * (self.num_items + 1) + rank
        before = torch.searchsorted(self._gaps, keys, right=True) - self.offsets[users].unsqueeze(1)
        return (rank + before).clamp(max=self.num_items - 1), lacking > 0
