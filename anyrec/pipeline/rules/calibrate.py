"""A rule that gives a user's list the mix of categories of the user's own history."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.features import Features, Values, check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.requests import liked_pairs
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.reorder import chosen_first, codes_at, relevance


class Calibrate(Rule):
    """Chooses the first k by their scores and by the user's own mix of categories (greedy calibration).

    p(c) is the mean over the items of the user's history of each item's categories, where each of n categories of an
    item counts 1/n; q(c) is the same for the list. Each step adds the item that maximises

        (1 - weight) * (sum of scores) - weight * KL(p || (1 - alpha) q + alpha p)

    Scores are scaled to [0, 1] over the user's candidates, logarithms are natural, ties go to the earlier item. A list
    whose divergence this does not lower stays as it is, as do the lists of users without a history.

    References:
        Steck, "Calibrated recommendations", RecSys 2018.
    """

    type = "calibrate"

    class Params(Rule.Params):
        feature: str = Field(description="Item feature with the category or categories.")
        weight: float = Field(0.5, ge=0, le=1, description="Weight of the user's mix against the scores.")
        alpha: float = Field(
            0.01,
            ge=1e-6,
            le=0.99,
            description="Smoothing: fraction of p that is mixed into q, so that no logarithm is infinite.",
        )

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.features = Features()

    def check(self, model: ModelData) -> None:
        raise_faults(check_feature(model, self.params.feature, "/feature", "item", ("text",)))

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        values = self.features.of(request, self.params.feature)
        if values.names is None or not lists.items.size:
            return lists
        own = own_mix(values, liked_pairs(request), len(lists.items))
        own, codes = _in_use(own, codes_at(values, lists))
        filled, alpha = lists.items >= 0, self.params.alpha
        chosen = self._choose(codes, relevance(lists), filled, own, min(k, lists.items.shape[1]))
        first = np.where(filled, np.arange(filled.shape[1]), -1)[:, :k]
        before, after = (divergence(own, mix_of(codes, places, own.shape[1]), alpha) for places in (first, chosen))
        return chosen_first(lists, np.where((after < before)[:, None], chosen, first))

    def _choose(self, codes: np.ndarray, scores: np.ndarray, filled: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
        """Choose greedily.

        The divergence differs from that of the list without new items only in the candidate's own categories, so each
        step updates only their terms.

        Args:
            codes: (users, length, n) categories of each candidate, -1 past the end.
            scores: (users, length) in [0, 1].
            filled: (users, length) bool, False past the end of a list.
            own: (users, categories) the mix p of each user.
            k: The number of items to choose.

        Returns:
            (users, k) places in the order chosen, -1 past the end.
        """
        weight, alpha = self.params.weight, self.params.alpha
        users, length, _ = codes.shape
        rows = np.arange(users)
        has = codes >= 0
        share = has / np.maximum(has.sum(2, keepdims=True), 1)  # (users, length, n)
        local = np.where(has, codes, own.shape[1])
        wide = np.concatenate([own, np.zeros((users, 1))], 1)  # (users, categories + 1): the last one stands for none
        p = wide[rows[:, None, None], local]  # (users, length, n)
        held, count = np.zeros_like(wide), np.zeros((users, 1))
        chosen, remaining = np.full((users, k), -1), filled.copy()
        for step in range(k):
            grown = p * _log(
                (1 - alpha) * (held[rows[:, None, None], local] + share) / (count + 1)[:, :, None] + alpha * p
            )
            alone = wide * _log((1 - alpha) * held / (count + 1) + alpha * wide)
            fits = alone.sum(1, keepdims=True) + (grown - alone[rows[:, None, None], local]).sum(2)
            same = (wide * _log((1 - alpha) * held / np.maximum(count, 1) + alpha * wide)).sum(1, keepdims=True)
            gain = (1 - weight) * scores + weight * np.where(has.any(2), fits, same)
            best = np.where(remaining, gain, -np.inf).argmax(1)
            valid = remaining[rows, best]
            chosen[valid, step] = best[valid]
            remaining[rows, best] = False
            np.add.at(held, (rows[:, None], local[rows, best]), share[rows, best])
            count += (has[rows, best].any(1) & valid)[:, None]
        return chosen


def own_mix(values: Values, seen: tuple[np.ndarray, np.ndarray], users: int) -> np.ndarray:
    """Return (users, categories) the mix of each user's items, with sum 1; zeros if no item has a category.

    Args:
        values: Categories of all items.
        seen: Two (pairs,) arrays: request row and item row.
        users: The number of users.
    """
    if values.names is None:
        raise ValueError("the feature has no texts")
    taken = values.take(seen[1])
    shares = 1 / taken.counts[taken.owners]
    total = np.zeros((users, len(values.names)))
    np.add.at(total, (seen[0][taken.owners], taken.data.astype(np.int64)), shares)
    return total / np.maximum(total.sum(1, keepdims=True), 1e-12)


def mix_of(codes: np.ndarray, chosen: np.ndarray, categories: int) -> np.ndarray:
    """Return (users, categories) the mix of some entries of each list.

    Its sum is below 1 if entries have the code `categories` (`_in_use`).

    Args:
        codes: (users, length, n) categories of each entry, -1 past the end.
        chosen: (users, k) places of the entries, -1 for none.
        categories: The number of categories.
    """
    users = len(codes)
    own = np.where((chosen >= 0)[:, :, None], np.take_along_axis(codes, np.maximum(chosen, 0)[:, :, None], 1), -1)
    has = own >= 0
    share = has / np.maximum(has.sum(2, keepdims=True), 1)
    total = np.zeros((users, categories + 1))
    np.add.at(total, (np.arange(users)[:, None, None], np.where(has, own, categories)), share)
    return (total / np.maximum(total.sum(1, keepdims=True), 1e-12))[:, :-1]


def _in_use(own: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep only categories in some user's mix; the others change no divergence and share the last code."""
    used = own.any(0)
    place = np.append(np.where(used, np.cumsum(used) - 1, used.sum()), -1)
    return own[:, used], place[codes]


def divergence(own: np.ndarray, mix: np.ndarray, alpha: float) -> np.ndarray:
    """Return (users,) KL(own || (1 - alpha) mix + alpha own) of (users, categories) mixes."""
    return (own * (_log(own) - _log((1 - alpha) * mix + alpha * own))).sum(1)


def _log(values: np.ndarray) -> np.ndarray:
    """Return the logarithm, and 0 for 0: such terms have the factor 0."""
    return np.log(np.where(values > 0, values, 1.0))
