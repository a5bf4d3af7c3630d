"""The choice to draw no negatives: only what the data itself calls a negative is one."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.contracts import Negatives, Sampler


class Labelled(Sampler):
    """No negatives are drawn: the interactions with label 0, or a low rating, are learned beside the positives, each as often as it happened.

    For losses of single scores: `bce` or `focal`. See anyrec/training/labelled_objective.py.
    """

    type = "labelled"
    labelled = True
    losses = ("bce", "focal")

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        none = users.new_empty(len(users), 0)
        return Negatives(none, none.bool(), None)
