"""Choose the weights of a blend on held-out targets: ensemble selection over the best items of each member."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anyrec.evaluation.held_out import HeldOut
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.model.scoring import top_k

POOL = 100
"""Best items of each member from which the lists are made."""
USERS_AT_A_TIME = 256


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

    def values(self, weights: Mapping[str, float], metric: str) -> np.ndarray:
        """Return (users,) the metric of each user's list by weighted scores.

        Args:
            weights: Weight of each member; members without an entry are left out.
            metric: Such as `ndcg@10`. `auc`, which needs the whole catalogue, is computed over the candidates.
        """
        blended = torch.stack([weight * self.scores[name] for name, weight in weights.items()]).sum(0)
        targets = blended[self.owners, self.places][:, None]
        ranks = np.empty(len(self.owners))
        for part in torch.arange(len(ranks)).split(4096):
            rows = blended[torch.from_numpy(self.owners[part.numpy()])]
            higher, equal = (rows > targets[part]).sum(1), (rows == targets[part]).sum(1) - 1
            ranks[part.numpy()] = (1 + higher + equal / 2).numpy()
        ranks = np.where(self.listable, ranks, np.inf)
        candidates = (blended > -torch.inf).sum(1).numpy()
        nothing = np.empty((len(self.users), 0), np.int64)
        k = [int(metric.split("@")[1])] if "@" in metric else [10]
        users = np.arange(len(self.users))
        ranking = Ranking(self.owners, self.places, ranks, users, nothing, candidates)
        return np.nan_to_num(metrics_by_user(ranking, k)[metric])


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
    chosen: Tensor | None = None
    rows, targets = (torch.from_numpy(part) for part in held.targets.take(users))
    for name, score in members.items():
        own = torch.nan_to_num(score(users).cpu(), nan=-1e9, neginf=-1e9)
        if held.exclude_seen:
            own[tuple(torch.from_numpy(part) for part in held.seen.take(users))] = -torch.inf
        own[:, torch.from_numpy(~held.rankable)] = -torch.inf
        scores[name] = own
        if chosen is None:
            chosen = torch.zeros(own.shape, dtype=torch.bool)
        chosen.scatter_(1, torch.topk(own, min(size, own.shape[1]), dim=1).indices, True)
    assert chosen is not None
    chosen[rows, targets] = True
    width = int(chosen.sum(1).max())
    found = top_k(chosen.float(), width)
    inside = found[0] > 0
    items = torch.where(inside, found[1], -1)
    return items, {name: own.gather(1, found[1]).masked_fill(~inside, -torch.inf) for name, own in scores.items()}


def select(pool: Pool, metric: str, rounds: int, first: Sequence[str]) -> dict[str, float]:
    """Choose the weights of a blend by ensemble selection.

    Starts with the best single member and adds, with replacement, the member that increases the mean of the metric
    most, until none does. A member's weight is the fraction of the rounds in which it was added. The result is used
    only if it is better than the best of the members `first` by more than one standard error of the paired
    difference; otherwise that member alone is returned, since it is simpler and as good.

    References:
        Caruana et al., Ensemble Selection from Libraries of Models, 2004.

    Args:
        pool: The scores.
        metric: As for `Pool.values`.
        rounds: Most steps.
        first: Members, by preference, that are used alone if a blend is not better by more than noise.

    Returns:
        Positive weights by name, which sum to 1.
    """
    single = {name: pool.values({name: 1.0}, metric) for name in pool.scores}
    names = [*first, *(name for name in single if name not in first)]
    best = max(names, key=lambda name: single[name].mean())
    counts, values = {best: 1}, single[best]
    for _ in range(rounds - 1):
        tried = {name: pool.values({**counts, name: counts.get(name, 0) + 1}, metric) for name in names}
        name = max(names, key=lambda one: tried[one].mean())
        if tried[name].mean() <= values.mean():
            break
        counts[name], values = counts.get(name, 0) + 1, tried[name]
    simple = max(first, key=lambda name: single[name].mean()) if first else best
    if not is_better(values, single[simple]):
        return {simple: 1.0}
    total = sum(counts.values())
    return {name: counts[name] / total for name in names if name in counts}


def is_better(values: np.ndarray, others: np.ndarray) -> bool:
    """Whether the mean of `values: (users,)` exceeds that of `others` by more than the standard error of the
    difference.
    """
    difference = values - others
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    return bool(difference.mean() > error)
