"""Rank of each held-out item among all candidates, and the accuracy metrics computed from these ranks."""

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
"""Scores in memory at once: 32 MB, about the largest block that glibc keeps when it is freed. Twice this number took
1.5 times as long (benchmarks/evaluation.py --simulate), because new pages had to be cleared."""
FIRST_USERS = 16
"""Users in the first block. Its scores show the number of items, and so how many users fit in CELLS."""


class Ranking(NamedTuple):
    """Ranks of the held-out items, and the lists.

    targets: (targets,) user rows, ascending. items: (targets,) their held-out items. ranks: (targets,) from 1; half
    ranks for equal scores; infinite for an item that was not ranked (a miss). users: (users,) rows of the users with a
    target, ascending. lists: (users, length) rows of the best items, best first, -1 past the end. candidates: (users,)
    number of ranked items, 0 if only lists are known.
    """

    targets: np.ndarray
    items: np.ndarray
    ranks: np.ndarray
    users: np.ndarray
    lists: np.ndarray
    candidates: np.ndarray

    def only(self, kept: np.ndarray) -> Ranking:
        """Return the ranking of the held-out items for which `kept: (targets,)` is true."""
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
    """Rank each held-out item among the candidates of its user, one block of users at a time.

    An item with the same score as the target counts half a rank. In the lists, the lower row of equal scores is first.
    A score that is nan is ranked last.

    Args:
        score: Function of user rows (batch,) that returns (batch, items) scores, which are overwritten.
        targets: Held-out items of each user.
        exclude: Pairs that lists exclude (items that the user interacted with before). A target among them is not
            ranked: a list cannot contain it, so its rank is infinite.
        rankable: (items,) bool, the candidates; a target that is not excluded is always ranked.
        length: Length of the lists.
        batch_size: Users scored at a time; fewer for a large catalogue, so that memory stays bounded.
        sample: Rank among this many items, drawn uniformly for each user. Sampled metrics are not comparable with
            metrics over all items.
        seed: Seed of the sample.
    """
    users = np.flatnonzero(targets.counts())
    places, items = targets.take(users)
    # Filled in place: small arrays kept from each block would fragment the memory that the large ones free.
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
    """Mask each row except `sample` candidates, drawn uniformly without replacement. scores: (batch, items)."""
    draws = torch.rand(scores.shape, generator=generator).to(scores.device).masked_fill_(scores == -torch.inf, 2.0)
    cut = draws.kthvalue(min(sample, scores.shape[1]), dim=1, keepdim=True).values
    scores.masked_fill_(draws > cut, -torch.inf)


def _trues(mask: Tensor) -> Tensor:
    """Return (rows,) number of true values of each row of `mask: (rows, columns)`.

    On a CPU, numpy is ten times as fast as torch.
    """
    if mask.device.type == "cpu":
        return torch.tensor([np.count_nonzero(row) for row in mask.numpy()])
    return mask.sum(1)


def metrics_by_user(ranking: Ranking, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Compute each accuracy metric at each k.

    m is the number of held-out items of a user; those of rank <= k are hits:
    recall = hits / m.
    precision = hits / k.
    hit_rate = 1 if there is a hit, else 0.
    mrr = 1 / (best rank) if that is a hit, else 0.
    ndcg = sum of 1 / log2(rank + 1) over hits, divided by its greatest possible value (min(m, k) hits at the top).
    map = sum over hits of (hits at this rank or better / rank), divided by min(m, k).
    auc (no k) = fraction of (ranked held-out item, other candidate) pairs in the right order, a tie counting half; nan
        if no held-out item was ranked, if no other item was, or if only lists are known.
    A held-out item that was not ranked counts in m and is never a hit.

    Args:
        ranking: Ranks of the held-out items.
        ks: Cut-offs.

    Returns:
        By name, as `ndcg@10`: (users,) float64 in the order of `ranking.users`.
    """
    if not len(ranking.users):
        return {}
    order = np.lexsort((ranking.ranks, ranking.targets))
    ranks = ranking.ranks[order]
    group = np.searchsorted(ranking.users, ranking.targets[order])
    ranks = _separate_ties(ranks, group)
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
    # A held-out item ranked above another one is not an error: of n, these are n (n - 1) / 2 pairs, also with ties.
    ranked = np.isfinite(ranks)
    n = total(ranked.astype(float))
    wrong = total(np.where(ranked, ranks - 1, 0.0)) - n * (n - 1) / 2
    others = np.maximum(ranking.candidates - n, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["auc"] = np.where(n * others > 0, 1 - wrong / (n * others), np.nan)
    return found


def _separate_ties(ranks: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Give held-out items of one user that tie successive ranks around their common rank.

    Three items that share the top become 1, 2 and 3. If all were 2, they would be three hits at k = 2, and precision
    1.5. ranks: (targets,) ascending within each group. group: (targets,) the user of each target.
    """
    first = np.append(True, (ranks[1:] != ranks[:-1]) | (group[1:] != group[:-1]))
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(ranks)))
    return ranks + np.arange(len(ranks)) - np.repeat(starts + (sizes - 1) / 2, sizes)


def ranking_metrics(ranking: Ranking, ks: Sequence[int]) -> dict[str, float]:
    """Return the mean over users of each metric of `metrics_by_user`; users without a value (nan) are omitted."""
    found = metrics_by_user(ranking, ks)
    return {name: float(np.nanmean(values)) for name, values in found.items() if not np.isnan(values).all()}
