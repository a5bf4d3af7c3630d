"""What the pipeline itself knows about a candidate, as input of the ranker: ranks, scores, popularity, age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anyrec.data.ids import NO_TIME
from anyrec.model.fitted import FittedModel
from anyrec.pipeline.candidate_lists import Candidates
from anyrec.pipeline.contracts import Request

MICROSECONDS_A_DAY = 86_400_000_000


def signal_names(sources: list[str], facts: list[str]) -> list[str]:
    """Return the names of the signals in their order. They are saved with the ranker and compared when it is loaded."""
    of_sources = [f"{value} in {name}" for name in sources for value in ("place", "score")]
    return ["score below the best", "log rank", "log events of the user", *of_sources, *facts]


def signal_values(request: Request, candidates: Candidates, facts: Sequence[Tensor]) -> np.ndarray:
    """Compute the signals of candidates.

    Args:
        request: The request.
        candidates: Its candidates.
        facts: (items,) each, what `item_facts` returned; items that were added later have no entry.

    Returns:
        (users, n, signals) float32, not standardised, in the order of `signal_names`.
    """
    items, scores = candidates.lists.items, candidates.lists.scores
    filled = items >= 0
    best = scores[:, :1]
    columns = [
        np.where(filled, scores - np.where(np.isfinite(best), best, 0), 0),
        np.broadcast_to(np.log1p(np.arange(items.shape[1])), items.shape),
        np.broadcast_to(np.log1p(_event_counts(request))[:, None], items.shape),
    ]
    for place, score in zip(candidates.places, candidates.scores, strict=True):
        # the discount of DCG: the difference between places 1 and 2 matters more than between 101 and 102
        columns += [np.where(place >= 0, 1 / np.log2(np.maximum(place, 0) + 2), 0), score]
    for fact in facts:
        values = fact.numpy()
        index = np.clip(items, 0, len(values) - 1)
        columns.append(np.where(filled & (items < len(values)), values[index], 0))
    return np.stack([column.astype(np.float32) for column in columns], -1)


def item_facts(model: FittedModel) -> dict[str, Tensor]:
    """Compute signals that depend on the item only.

    Returns:
        (items,) float32 each: `log popularity`, the log of 1 + the number of users who have the item among the training
        positives; and with timestamps `log age in days`, the log of 1 + the days from the item's first training
        positive to the newest of all items.
    """
    learning = model.required_learning()
    dataset = learning.dataset
    size = len(dataset.items)
    counts = np.bincount(dataset.item_rows[learning.positives_learned(model.config)], minlength=size)
    facts = {"log popularity": np.log1p(counts)}
    rows = learning.positives(learning.final_split(model.config).train)
    items, times = dataset.item_rows[rows], dataset.times[rows]
    known = times != NO_TIME
    if known.any():
        last = int(times[known].max())
        first = np.full(size, last)
        np.minimum.at(first, items[known], times[known])
        facts["log age in days"] = np.log1p((last - first) / MICROSECONDS_A_DAY)
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in facts.items()}


def _event_counts(request: Request) -> np.ndarray:
    """Return (users,) the number of events in each user's history."""
    owners, _, _ = request.events
    return np.bincount(owners, minlength=len(request.rows))
