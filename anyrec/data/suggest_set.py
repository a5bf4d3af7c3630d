"""The suggestion for interactions without order: each user as the set of their items."""

from __future__ import annotations

import math

import numpy as np

from anyrec.core.types import JsonObject

STEPS = 600
"""The steps in which a set model learns a small data set."""
EPOCHS = (8, 30)
"""The fewest and the most epochs."""
USERS = (64, 256)
"""The fewest and the most users of a step, who share its gradient of the item vectors."""
STEPS_AN_EPOCH = 64
"""The steps that an epoch is cut into, if that many users are in each."""
VALIDATIONS = 12
"""The number of validations of a training, about."""
PATIENCE = 4
"""The validations without a better metric after which training stops: at most half of the epochs."""
MOST_CELLS = 2_000_000_000
"""The most users times items for scores of all pairs in each epoch."""
DIMS = ((20_000, 64), (150_000, 128), (5_000_000, 256))
"""Numbers of interactions, and the dimension below each of them."""
LARGE_DIM = 128
"""The dimension beyond."""


def suggest_set(
    config: JsonObject,
    reasons: list[str],
    lengths: np.ndarray,
    items: int,
    has_features: bool,
    *,
    why: str,
    batch: int | None,
    epochs: int | None,
    own_history: bool,
    keep_id: bool,
) -> None:
    """Suggest the mean of the users' items as their vector, compared by cosine.

    Args:
        config: Gets the suggestion.
        reasons: Gets the reasons.
        lengths: (users,) the number of interactions of each user who has any.
        items: Number of items.
        has_features: Whether users have features.
        why: Why no order is learned.
        batch: The batch size that the user set.
        epochs: The number of epochs that the user set.
        own_history: Whether the user set the history under `user.features`.
        keep_id: Whether users keep the vector of their id besides.
    """
    interactions, users = int(lengths.sum()), max(1, len(lengths))
    config["features"] = {"identity": {"type": "identity", "init_std": 0.02}}
    config["user"] = {"features": {}}
    (config["user"]["features"] if own_history else config["features"])["history"] = {"type": "set"}
    if not keep_id:
        config["user"]["features"]["identity"] = None
    config["fusion"] = {"type": "residual"}
    temperature = round(1 / math.log(max(items, 3)), 4)
    config["interaction"] = {"type": "cosine", "temperature": temperature}
    if has_features:
        config["history_dropout"] = 0.1
        reasons.append("history_dropout 0.1: users have features, which the model needs for people without a history")
    reasons.append(f"users as sets of items, without order: {why}")
    reasons.append(f"cosine scores at temperature {temperature}: one by the logarithm of {items:,} items")
    length = interactions / users
    together = min(USERS[1], max(USERS[0], users // STEPS_AN_EPOCH))
    batch = batch or max(1, round(together * length))
    steps = math.ceil(interactions / batch)
    epochs = epochs or min(EPOCHS[1], max(EPOCHS[0], math.ceil(STEPS / steps)))
    config["training"] = {
        "epochs": epochs,
        "batch_size": batch,
        "evaluate_every": math.ceil(epochs / VALIDATIONS),
        "patience": PATIENCE,
        "optimizer": {"type": "adamw", "learning_rate": 0.003, "weight_decay": 0.01},
        "scheduler": {"type": "linear", "warmup": 0.05},
    }
    reasons.append(f"{epochs} epochs with a falling learning rate, {round(batch / length):,} users a step")


def set_dim(interactions: int) -> int:
    """Return the dimension of the vectors for a number of interactions."""
    return next((dim for most, dim in DIMS if interactions < most), LARGE_DIM)
