"""Choose the weights of a blend on held-out targets: ensemble selection over the best items of each member."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anyrec.core.ranks import ranks_of
from anyrec.evaluation.held_out import HeldOut
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.model.scoring import top_k

POOL = 100
"""Best items of each member from which the lists are made."""
STEPS = (0.5, 0.3, 0.15, 0.07)
"""Shares of a member that are tried when it is added to a blend."""
USERS_AT_A_TIME = 256
BAGS, BAG = 10, 1000
"""Samples of the users on which weights are found, and the most users of each."""
LEAST_SHARE = 0.05
"""Weight below which a member is left out."""


@dataclass(frozen=True)
class Pool:
    """The standardised scores of each member for the candidates of each user.

    The candidates are the `POOL` best items of every member, and the targets. An item outside them is in no member's
    best, so no blend lists it among its first items, but for rare ties.

    Attributes:
        users: (users,) rows of the users with a target.
        scores: By member, (users, width) float32; -inf for padding and for items that a list excludes.
        owners: (targets,) positions in `users`, ascending.
        places: (targets,) columns of the targets.
        listable: (targets,) bool, False for a target that a list excludes.
    """

    users: np.ndarray
    scores: Mapping[str, Tensor]
    owners: np.ndarray
    places: np.ndarray
    listable: np.ndarray

    def only(self, kept: np.ndarray) -> Pool:
        """Return the pool of the users for which `kept: (users,)` is true."""
        index = np.cumsum(kept) - 1
        inside = kept[self.owners]
        scores = {name: values[torch.from_numpy(kept)] for name, values in self.scores.items()}
        owners = index[self.owners[inside]]
        return Pool(self.users[kept], scores, owners, self.places[inside], self.listable[inside])

    def of(self, names: Iterable[str]) -> Pool:
        """Return the pool with the scores of some members. names: of the members."""
        return replace(self, scores={name: self.scores[name] for name in names})

    def blended(self, weights: Mapping[str, float]) -> Tensor:
        """Return (users, width), the weighted sum of the members' scores; members without a weight are left out."""
        total = torch.zeros(())
        for name, weight in weights.items():
            total = total + weight * self.scores[name]
        return total

    def values(self, blended: Tensor, metric: str) -> np.ndarray:
        """Return (users,) the metric of each user's list.

        Args:
            blended: (users, width) scores of the candidates.
            metric: Such as `ndcg@10`. `auc`, which needs the whole catalogue, is computed over the candidates.
        """
        k = int(metric.split("@")[1]) if "@" in metric else None
        if k is None:
            owners = torch.from_numpy(self.owners)
            ranks = ranks_of(blended, owners, blended[self.owners, self.places]).numpy()
        else:
            ranks = self._first_ranks(blended, k)
        ranks = np.where(self.listable, ranks, np.inf)
        candidates = (blended > -torch.inf).sum(1).numpy()
        nothing = np.empty((len(self.users), 0), np.int64)
        users = np.arange(len(self.users))
        ranking = Ranking(self.owners, self.places, ranks, users, nothing, candidates)
        return np.nan_to_num(metrics_by_user(ranking, [k or 1])[metric])

    def _first_ranks(self, blended: Tensor, k: int) -> np.ndarray:
        """Return (targets,) the ranks up to k, and infinity for a target behind. Equal scores have any order."""
        places = torch.topk(blended, min(k, blended.shape[1]), dim=1).indices
        ranks = torch.full(blended.shape, torch.inf)
        ranks.scatter_(1, places, torch.arange(1.0, places.shape[1] + 1).expand_as(places).contiguous())
        return ranks[self.owners, self.places].double().numpy()


def make_pool(
    users: np.ndarray, members: Mapping[str, Callable[[np.ndarray], Tensor]], held: HeldOut, size: int = POOL
) -> Pool:
    """Score the candidates of each user by each member.

    Args:
        users: (users,) rows, each with at least one target.
        members: By name, the function of user rows that returns (batch, items) standardised scores.
        held: The targets, the items that lists exclude, and the items that they may contain.
        size: Best items of each member that are candidates.
    """
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    for start in range(0, len(users), USERS_AT_A_TIME):
        parts.append(_candidates(users[start : start + USERS_AT_A_TIME], members, held, size))
    width = max(items.shape[1] for items, _ in parts)
    items = torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1]), value=-1) for one, _ in parts])
    scores = {
        name: torch.cat(
            [torch.nn.functional.pad(own[name], (0, width - own[name].shape[1]), value=-torch.inf) for _, own in parts]
        )
        for name in members
    }
    owners, wanted = held.targets.take(users)
    listable = np.ones(len(owners), bool)
    if held.exclude_seen:
        listable = ~held.seen.contains(users[owners], wanted)
    places = (items[torch.from_numpy(owners)] == torch.from_numpy(wanted)[:, None]).int().argmax(1).numpy()
    return Pool(users, scores, owners, places, listable)


def _candidates(
    users: np.ndarray, members: Mapping[str, Callable[[np.ndarray], Tensor]], held: HeldOut, size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the candidates (users, width) of one block, -1 as padding, and each member's scores for them."""
    scores: dict[str, Tensor] = {}
    chosen = torch.zeros((len(users), len(held.rankable)), dtype=torch.bool)
    chosen[tuple(torch.from_numpy(part) for part in held.targets.take(users))] = True
    for name, score in members.items():
        own = torch.nan_to_num(score(users).cpu(), nan=-1e9, neginf=-1e9)
        if held.exclude_seen:
            own[tuple(torch.from_numpy(part) for part in held.seen.take(users))] = -torch.inf
        own[:, torch.from_numpy(~held.rankable)] = -torch.inf
        scores[name] = own
        chosen.scatter_(1, torch.topk(own, min(size, own.shape[1]), dim=1).indices, True)
    width = int(chosen.sum(1).max())
    found = top_k(chosen.float(), width)
    inside = found[0] > 0
    items = torch.where(inside, found[1], -1)
    return items, {name: own.gather(1, found[1]).masked_fill(~inside, -torch.inf) for name, own in scores.items()}


def select(
    pool: Pool,
    metric: str,
    rounds: int,
    default: Mapping[str, float],
    *,
    members: Iterable[str] | None = None,
    evidence: tuple[float, float] = (0.0, 2.0),
    seed: int = 0,
) -> dict[str, float]:
    """Choose the weights of a blend: default weights, others, or between them, by the evidence for the others.

    The others are the mean of those found by `climb` on BAGS samples of the users, without shares below LEAST_SHARE.
    The evidence is the difference between the metric of users outside a sample, with the weights found on it, and that
    with the default weights, in standard errors of the paired difference. The share of the others grows linearly from 0
    to 1 between the two limits of `evidence`.

    References:
        Caruana et al., Ensemble Selection from Libraries of Models, 2004, section 2.3: a single selection overfits;
        the mean of selections on samples does less.

    Args:
        pool: The scores.
        metric: As for `Pool.values`.
        rounds: Most steps of each selection.
        default: The default weights by name.
        members: The members to choose from; by default all.
        evidence: Standard errors up to which the default weights are used alone, and from which the others are.
        seed: Seed of the samples.

    Returns:
        Positive weights by name, which sum to 1.
    """
    own = pool if members is None else pool.of(members)
    found, outside = _bagged(own, metric, rounds, np.random.default_rng(seed))
    measured = ~np.isnan(outside)
    errors = standard_errors(outside[measured], pool.values(pool.blended(default), metric)[measured])
    share = float(np.clip((errors - evidence[0]) / (evidence[1] - evidence[0]), 0.0, 1.0))
    return _shares(
        {name: (1 - share) * default.get(name, 0.0) + share * found.get(name, 0.0) for name in {**default, **found}}
    )


def _bagged(pool: Pool, metric: str, rounds: int, random: np.random.Generator) -> tuple[dict[str, float], np.ndarray]:
    """Return the mean weights of selections on samples of the users, drawn with replacement.

    Returns:
        The weights, and (users,) the metric of each user with the weights of the samples that the user is not in: the
        mean over these samples, nan for a user who is in all.
    """
    users = len(pool.users)
    total: dict[str, float] = {}
    sums, times = np.zeros(users), np.zeros(users)
    for _ in range(BAGS):
        counts = np.bincount(random.choice(users, min(users, BAG)), minlength=users)
        weights = climb(pool.only(counts > 0), metric, rounds, counts[counts > 0])
        for name, weight in weights.items():
            total[name] = total.get(name, 0.0) + weight / BAGS
        outside = counts == 0
        if outside.any():
            other = pool.only(outside)
            sums[outside] += other.values(other.blended(weights), metric)
            times[outside] += 1
    return _shares(total), np.divide(sums, times, out=np.full(users, np.nan), where=times > 0)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights without those below LEAST_SHARE, which sum to 1. weights: sum to 1."""
    kept = {name: weight for name, weight in weights.items() if weight >= LEAST_SHARE}
    total = sum(kept.values())
    return {name: weight / total for name, weight in kept.items()}


def climb(pool: Pool, metric: str, rounds: int, counts: np.ndarray | None = None) -> dict[str, float]:
    """Find the weights of a blend by greedy ensemble selection.

    Starts with the best single member. Each round moves the weights by one of `STEPS` towards the member that raises
    the mean of the metric most: weights = (1 - step) * weights + step * member. It ends when nothing raises it.

    References:
        Caruana et al., Ensemble Selection from Libraries of Models, 2004. They add whole models, so that the first
        step is one half; smaller steps also find a small share of a model that is much worse alone.

    Args:
        pool: The scores.
        metric: As for `Pool.values`.
        rounds: Most steps.
        counts: (users,) how often each user counts; by default once.

    Returns:
        Positive weights by name, which sum to 1.
    """

    def mean(blended: Tensor) -> float:
        return float(np.average(pool.values(blended, metric), weights=counts))

    single = {name: mean(scores) for name, scores in pool.scores.items()}
    best = max(single, key=lambda name: single[name])
    weights, value, blended = {best: 1.0}, single[best], pool.scores[best]
    moves = [(name, step) for name in single for step in STEPS]
    for _ in range(rounds):
        tried = [mean(_moved(blended, pool.scores[name], step)) for name, step in moves]
        place = int(np.argmax(tried))
        if tried[place] <= value:
            break
        name, step = moves[place]
        weights = {one: (1 - step) * weight for one, weight in weights.items()}
        weights[name] = weights.get(name, 0.0) + step
        value, blended = tried[place], _moved(blended, pool.scores[name], step)
    return weights


def _moved(scores: Tensor, others: Tensor, step: float) -> Tensor:
    """Return (1 - step) * scores + step * others; -inf in both stays -inf, which `torch.lerp` would make nan."""
    return scores * (1 - step) + others * step


def standard_errors(values: np.ndarray, others: np.ndarray) -> float:
    """Return the mean of `values - others: (users,)` in standard errors of that mean; 0 if all are equal."""
    difference = values - others
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(len(difference))
    return float(mean / error) if error > 0 else 0.0
