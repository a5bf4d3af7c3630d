"""Gives a user's list the mix of categories that the user's own history has."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from anyrec.model.fitted import ModelData
from anyrec.pipeline.conditions.features import Features, Values, check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.requests import liked_pairs
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.reorder import chosen_first, codes_at, relevance


class Calibrate(Rule):
    """Chooses the first k for both their scores and the user's own mix of categories (Steck 2018, greedy).

    With p(c) the mean over the user's items of an item's categories, each of an item's n weighing 1/n, and q(c) the same of the
    list, each next item is the one after which (1 - weight) * (sum of scores) - weight * KL(p || (1 - alpha) q + alpha p) is
    greatest; scores are scaled to [0, 1] over the user's candidates, logarithms natural, ties to the earlier item. A
    list whose divergence this would not lower stays as it is, as do those of users without a history.
    """

    type = "calibrate"

    class Params(Rule.Params):
        feature: str = Field(description="Item feature with the category or categories.")
        weight: float = Field(0.5, ge=0, le=1, description="Of the user's mix against the scores.")
        alpha: float = Field(
            0.01,
            ge=1e-6,
            le=0.99,
            description="Smoothing: how much of p is mixed into q, so that no logarithm is infinite.",
        )

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        self.features = Features()

    def check(self, model: ModelData) -> None:
        raise_faults(check_feature(model, self.params.feature, "/feature", "item", ("text",)))

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        values = self.features.of(request, self.params.feature)
        if values.names is None or not lists.items.size:
            return lists
        own = own_mix(values, liked_pairs(request), len(lists.items))
        own, codes = _in_use(own, codes_at(values, lists))
        there, alpha = lists.items >= 0, self.params.alpha
        chosen = self._choose(codes, relevance(lists), there, own, min(k, lists.items.shape[1]))
        first = np.where(there, np.arange(there.shape[1]), -1)[:, :k]
        before, after = (divergence(own, mix_of(codes, places, own.shape[1]), alpha) for places in (first, chosen))
        return chosen_first(lists, np.where((after < before)[:, None], chosen, first))

    def _choose(self, codes: np.ndarray, scores: np.ndarray, there: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
        """(users, k) places in the order chosen, -1 past the end."""
        weight, alpha = self.params.weight, self.params.alpha
        users, length, _ = codes.shape
        rows = np.arange(users)
        has = codes >= 0
        share = has / np.maximum(has.sum(2, keepdims=True), 1)  # (users, length, n)
        local = np.where(has, codes, own.shape[1])
        wide = np.concatenate([own, np.zeros((users, 1))], 1)  # a last category for none
        p = wide[rows[:, None, None], local]
        held, count = np.zeros_like(wide), np.zeros((users, 1))
        chosen, open_ = np.full((users, k), -1), there.copy()
        for step in range(k):
            grown = p * _log(
                (1 - alpha) * (held[rows[:, None, None], local] + share) / (count + 1)[:, :, None] + alpha * p
            )
            alone = wide * _log((1 - alpha) * held / (count + 1) + alpha * wide)
            fits = alone.sum(1, keepdims=True) + (grown - alone[rows[:, None, None], local]).sum(2)
            same = (wide * _log((1 - alpha) * held / np.maximum(count, 1) + alpha * wide)).sum(1, keepdims=True)
            gain = (1 - weight) * scores + weight * np.where(has.any(2), fits, same)
            best = np.where(open_, gain, -np.inf).argmax(1)
            some = open_[rows, best]
            chosen[some, step] = best[some]
            open_[rows, best] = False
            np.add.at(held, (rows[:, None], local[rows, best]), share[rows, best])
            count += (has[rows, best].any(1) & some)[:, None]
        return chosen


def own_mix(values: Values, seen: tuple[np.ndarray, np.ndarray], users: int) -> np.ndarray:
    """(users, categories) the mix of what each user had, sum 1; zeros where no item had a category."""
    assert values.names is not None
    taken = values.take(seen[1])
    shares = 1 / taken.counts[taken.owners]
    total = np.zeros((users, len(values.names)))
    np.add.at(total, (seen[0][taken.owners], taken.data.astype(np.int64)), shares)
    return total / np.maximum(total.sum(1, keepdims=True), 1e-12)


def mix_of(codes: np.ndarray, chosen: np.ndarray, categories: int) -> np.ndarray:
    """(users, categories) the mix of the entries `chosen: (users, k)` (places, -1 for none); what is missing from a sum of 1 is of codes
    past `categories`."""
    users = len(codes)
    own = np.where((chosen >= 0)[:, :, None], np.take_along_axis(codes, np.maximum(chosen, 0)[:, :, None], 1), -1)
    has = own >= 0
    share = has / np.maximum(has.sum(2, keepdims=True), 1)
    total = np.zeros((users, categories + 1))
    np.add.at(total, (np.arange(users)[:, None, None], np.where(has, own, categories)), share)
    return (total / np.maximum(total.sum(1, keepdims=True), 1e-12))[:, :-1]


def _in_use(own: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mixes and codes with only those categories apart that some user had: the others weigh nothing, and share the last code."""
    used = own.any(0)
    place = np.append(np.where(used, np.cumsum(used) - 1, used.sum()), -1)
    return own[:, used], place[codes]


def divergence(own: np.ndarray, mix: np.ndarray, alpha: float) -> np.ndarray:
    """(users,) KL(own || (1 - alpha) mix + alpha own)."""
    return (own * (_log(own) - _log((1 - alpha) * mix + alpha * own))).sum(1)


def _log(values: np.ndarray) -> np.ndarray:
    """The logarithm, 0 of 0: such terms weigh nothing."""
    return np.log(np.where(values > 0, values, 1.0))
