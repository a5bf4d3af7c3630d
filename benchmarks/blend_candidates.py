"""Recall of the candidates for a blend: how deep in the towers' and the members' lists its k best items are.

python benchmarks/blend_candidates.py --model models/ml-100k [--users 1000] [--k 10]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from anyrec import Recommender
from anyrec.model.blended import TOWERS, BlendedModel

DEPTHS = (10, 20, 50, 100, 200)


def ranks(scores: torch.Tensor, items: torch.Tensor) -> np.ndarray:
    """Return the places from 0 of items (users, k) in the order of scores (users, items)."""
    return (scores[:, None, :] > scores.gather(1, items)[:, :, None]).sum(2).numpy()


@torch.inference_mode()
def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", required=True)
    options.add_argument("--users", type=int, default=1000)
    options.add_argument("--k", type=int, default=10)
    given = options.parse_args()
    model = Recommender.load(given.model).model
    assert isinstance(model, BlendedModel)
    count = len(model.dataset.users)
    rows = np.sort(np.random.default_rng(0).permutation(count)[: given.users])
    in_towers, in_members = [], []
    for part in np.array_split(rows, max(1, len(rows) // 50)):
        users, items = model.user_representations(part), model.representations("item")
        scorer = model.scorer
        exact = scorer.score(users, items).float()
        members = scorer.members_score(users)
        towers = scorer.towers_score(users[:, : items.shape[1] - 1], items[:, :-1]).float()
        owners, seen = model.seen_by(part)
        for scores in (exact, members, towers):
            scores[torch.from_numpy(owners), torch.from_numpy(seen)] = -torch.inf
        best = exact.topk(given.k, 1).indices
        in_towers.append(ranks(towers, best))
        in_members.append(ranks(members, best))
    tower_ranks, member_ranks = np.concatenate(in_towers), np.concatenate(in_members)
    print(f"{given.model}: {len(rows)} of {count} users, {len(model.dataset.items)} items, k {given.k}")
    print({group: {name: round(w, 3) for name, w in own.items()} for group, own in model.weights.items()}, TOWERS)
    print("depth  towers  members  both")
    for depth in DEPTHS:
        own, other = tower_ranks < depth, member_ranks < depth
        print(f"{depth:5}  {own.mean():.4f}  {other.mean():.4f}   {(own | other).mean():.4f}")


if __name__ == "__main__":
    main()
