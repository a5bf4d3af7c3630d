"""What the labels of the data say of negatives: pairs that are negatives, and pairs that are not."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.training.samples import Samples


class ExplicitNegatives:
    """The explicit negatives of all users, from which one is drawn for each positive.

    Args:
        samples: The training samples.
        num_users: Number of users.
    """

    def __init__(self, samples: Samples, num_users: int):
        users, items = samples.negatives
        order = torch.argsort(users, stable=True)
        self.items = items[order]
        self.counts = torch.bincount(users, minlength=num_users)
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, users: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw an explicit negative for each user.

        Args:
            users: (batch,) rows.
            generator: Source of the random numbers.

        Returns:
            (batch,) item rows, and (batch,) bool, False for a user without explicit negatives.
        """
        counts = self.counts[users]
        draws = (torch.rand(len(users), generator=generator, device=users.device) * counts).long()
        place = (self.starts[users] + torch.minimum(draws, (counts - 1).clamp(min=0))).clamp(max=len(self.items) - 1)
        return self.items[place], counts > 0


def not_negative(samples: Samples, config: Config, all_items: bool) -> tuple[Tensor, Tensor] | None:
    """Return user rows and item rows of the training interactions, besides positives, that are no negatives.

    Samplers do not draw explicit negatives either: these are added to the drawn ones.

    Args:
        samples: The training samples.
        config: The config.
        all_items: Whether the loss compares with all items. Explicit negatives are then negatives where they are.
    """
    if config.negatives.exclude == "positives":
        return None
    if all_items and config.explicit_negatives:
        return samples.neutral
    (users, items), (disliked_by, disliked) = samples.neutral, samples.negatives
    return torch.cat([users, disliked_by]), torch.cat([items, disliked])
