"""The sampler that draws no negatives, for training on the explicit negatives of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.contracts import Negatives, Sampler


class Labelled(Sampler):
    """Draws no negatives. Interactions with label 0 or a low rating are learned as samples, as often as they occur.

    It is for losses of single scores, `bce` or `focal`: `anyrec.training.labelled_objective` applies them.
    """

    type = "labelled"
    labelled = True
    reads_ratio = False
    losses = ("bce", "focal")

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        none = users.new_empty(len(users), 0)
        return Negatives(none, none.bool(), None)
