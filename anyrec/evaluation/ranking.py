"""Ranking metrics over the whole catalogue, from the rank of every held-out item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anyrec.core.ranks import ranks_of
from anyrec.data.pairs import Pairs
from anyrec.model.scoring import top_k

METRICS = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")
LOWEST = torch.finfo(torch.float32).min
CELLS = 8_000_000
"""Scores held at once: 32 MB, about the largest block that glibc keeps when it is freed. Twice as many took half as long again
(benchmarks/evaluation.py --simulate), spent on clearing fresh pages."""
FIRST_USERS = 16
"""Scored at first, to learn how many items there are, and so how many users fit in CELLS."""


class Ranking(NamedTuple):
    """Where a model ranks what was held out, and what it would have shown instead.

    targets: (targets,) rows of users, ascending; items: (targets,) their held-out items; ranks: (targets,) from 1,
    halves where scores tie, infinite where an item was not ranked (a miss). users: (users,) the rows of those with a target,
    ascending; lists: (users, length) rows of the best items, best first, -1 past the end; candidates: (users,) the number of
    ranked items, 0 where only lists are known.
    """

    targets: np.ndarray
    items: np.ndarray
    ranks: np.ndarray
    users: np.ndarray
    lists: np.ndarray
    candidates: np.ndarray

    def only(self, kept: np.ndarray) -> Ranking:
        """The ranking of some of the held-out items. kept: (targets,) bool."""
        users = np.unique(self.targets[kept])
        place = np.searchsorted(self.users, users)
        items, ranks = self.items[kept], self.ranks[kept]
        return Ranking(self.targets[kept], items, ranks, users, self.lists[place], self.candidates[place])


def rank_targets(
    score: Callable[[np.ndarray], Tensor],
    targets: Pairs,
    exclude: Pairs | None = None,
    rankable: np.ndarray | None = None,
    *,
    length: int = 20,
    batch_size: int = 1024,
    sample: int | None = None,
    seed: int = 0,
) -> Ranking:
    """Rank every held-out item among all items that its user may be shown, a block of users at a time.

    Args:
        score: rows of users (batch,) -> (batch, items) scores, which are overwritten.
        exclude: pairs that lists leave out (what the user had before). A target among them is not ranked either: a list
            cannot contain it, so its rank is infinite.
        rankable: (items,) bool, the items that targets are ranked among; a target is always ranked if it is not excluded.
        length: of the lists.
        batch_size: users scored at a time; fewer if the catalogue is large, so that memory stays bounded.
        sample: rank among this many items, drawn evenly for each user. Sampled metrics are not comparable with others.

    An item that scores the same as the target counts half a place; in the lists the lower row comes first. A score that is
    not a number ranks last.
    """
    users = np.flatnonzero(targets.counts())
    places, items = targets.take(users)
    # Filled in place: small arrays kept from each block would lie among the large ones that are freed, and memory would grow.
    ranks, lists = np.empty(len(items)), np.full((len(users), length), -1)
    candidates = np.empty(len(users), np.int64)
    generator = torch.Generator().manual_seed(seed)
    start, size = 0, min(batch_size, FIRST_USERS)
    while start < len(users):
        batch = users[start : start + size]
        scores = torch.nan_to_num(score(batch).detach().float(), nan=LOWEST, neginf=LOWEST)
        low, high = np.searchsorted(places, [start, start + size])
        here = places[low:high] - start, items[low:high]
        rows, columns = (torch.from_numpy(part).to(scores.device) for part in here)
        if exclude is not None:
            scores[tuple(torch.from_numpy(part).to(scores.device) for part in exclude.take(batch))] = -torch.inf
        wanted = scores[rows, columns]
        if rankable is not None:
            scores[:, torch.from_numpy(~rankable).to(scores.device)] = -torch.inf
        if sample is not None:
            _keep_sample(scores, sample, generator)
        scores[rows, columns] = wanted
        best, found = top_k(scores, min(length, scores.shape[1]))
        lists[start : start + size, : best.shape[1]] = torch.where(best > -torch.inf, found, -1).cpu().numpy()
        candidates[start : start + size] = _trues(scores > -torch.inf).cpu().numpy()
        found_ranks = ranks_of(scores, rows, wanted)
        ranks[low:high] = found_ranks.masked_fill(wanted == -torch.inf, torch.inf).cpu().numpy()
        start, size = start + size, max(1, min(batch_size, CELLS // scores.shape[1]))
    return Ranking(users[places], items, ranks, users, lists, candidates)


def _keep_sample(scores: Tensor, sample: int, generator: torch.Generator) -> None:
    """Bar all of each row but `sample` items drawn evenly, without replacement, from those that it may rank."""
    draws = torch.rand(scores.shape, generator=generator).to(scores.device).masked_fill_(scores == -torch.inf, 2.0)
    cut = draws.kthvalue(min(sample, scores.shape[1]), dim=1, keepdim=True).values
    scores.masked_fill_(draws > cut, -torch.inf)


def _trues(mask: Tensor) -> Tensor:
    """mask: (rows, columns) -> (rows,) how many of each row are true; torch takes ten times as long on a CPU as numpy."""
    if mask.device.type == "cpu":
        return torch.tensor([np.count_nonzero(row) for row in mask.numpy()])
    return mask.sum(1)


def metrics_by_user(ranking: Ranking, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Each metric at each k as {"ndcg@10": (users,)}, in the order of `ranking.users`.

    With m held-out items and those of rank <= k the hits: recall = hits / m; precision = hits / k; hit_rate = 1 if any
    hit; mrr = 1 / (best rank) if it is a hit; ndcg = sum of 1 / log2(rank + 1) over hits, divided by its greatest
    possible value (min(m, k) hits at the top); map = sum over hits of (hits at or above it / its rank), divided by
    min(m, k). A held-out item that was not ranked counts in m and is never a hit. auc (no k): the share of (ranked held-out
    item, other candidate) pairs in the right order, a tie counting half; not a number if no held-out item was ranked, if
    nothing else was, or if only lists are known.
    """
    if not len(ranking.users):
        return {}
    order = np.lexsort((ranking.ranks, ranking.targets))
    ranks = ranking.ranks[order]
    group = np.searchsorted(ranking.users, ranking.targets[order])
    ranks = _part_ties(ranks, group)
    count = np.bincount(group, minlength=len(ranking.users))
    place = np.arange(len(ranks)) - np.repeat(np.cumsum(count) - count, count) + 1
    gains = 1 / np.log2(ranks + 1)
    best = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks) + 2)))])
    found = {}

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values, minlength=len(count))

    for k in ks:
        hit = ranks <= k
        hits = total(hit.astype(float))
        top = np.minimum(count, k)
        found[f"ndcg@{k}"] = total(gains * hit) / best[top]
        found[f"recall@{k}"] = hits / count
        found[f"precision@{k}"] = hits / k
        found[f"hit_rate@{k}"] = (hits > 0).astype(float)
        found[f"map@{k}"] = total(np.where(hit, place / ranks, 0.0)) / top
        found[f"mrr@{k}"] = total(np.where(hit & (place == 1), 1 / ranks, 0.0))
    # The places of ranked held-out items above each other are no mistakes: n (n - 1) / 2 of n, however they tie.
    ranked = np.isfinite(ranks)
    n = total(ranked.astype(float))
    wrong = total(np.where(ranked, ranks - 1, 0.0)) - n * (n - 1) / 2
    others = np.maximum(ranking.candidates - n, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["auc"] = np.where(n * others > 0, 1 - wrong / (n * others), np.nan)
    return found


def _part_ties(ranks: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Held-out items of one user that tie take successive places about their common one: three that share the top are 1st, 2nd
    and 3rd. All at 2 they would be three hits at k = 2, and precision 1.5. ranks: (targets,) ascending within each group."""
    first = np.append(True, (ranks[1:] != ranks[:-1]) | (group[1:] != group[:-1]))
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(ranks)))
    return ranks + np.arange(len(ranks)) - np.repeat(starts + (sizes - 1) / 2, sizes)


def ranking_metrics(ranking: Ranking, ks: Sequence[int]) -> dict[str, float]:
    """The mean over users of each of `metrics_by_user`; users without a held-out item are left out."""
    found = metrics_by_user(ranking, ks)
    return {name: float(np.nanmean(values)) for name, values in found.items() if not np.isnan(values).all()}
