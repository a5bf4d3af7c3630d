"""Recall of a blend's lists through an index: how deep its k best items are in the towers' and the members' lists, and
the recall of the lists that are served with `depth` candidates of each (anyrec/retrieval/blend_candidates.py).

python benchmarks/blend_candidates.py --model models/ml-100k [--users 1000] [--k 10] [--index '{"type": "faiss"}']
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from anyrec import Recommender
from anyrec.core.types import JsonObject
from anyrec.model.blended import BlendedModel
from anyrec.retrieval.best_items import best_items

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
    options.add_argument("--index", default='{"type": "faiss", "kind": "hnsw"}')
    given = options.parse_args()
    recommender = Recommender.load(given.model)
    model = recommender.model
    assert isinstance(model, BlendedModel)
    count = len(model.dataset.users)
    rows = np.sort(np.random.default_rng(0).permutation(count)[: given.users])
    in_towers, in_members, wanted = [], [], []
    for part in np.array_split(rows, max(1, len(rows) // 50)):
        users, items = model.user_representations(part), model.representations("item")
        scorer, dim = model.scorer, items.shape[1] - 1
        exact, read = scorer.score(users, items).float(), users[:, dim:].long()
        members = scorer.members_score(read, scorer.groups_of(read))
        towers = scorer.towers_score(users[:, :dim], items[:, :-1]).float()
        owners, seen = model.seen_by(part)
        for scores in (exact, members, towers):
            scores[torch.from_numpy(owners), torch.from_numpy(seen)] = -torch.inf
        best = exact.topk(given.k, 1).indices
        in_towers.append(ranks(towers, best))
        in_members.append(ranks(members, best))
        wanted.append(best.numpy())
    tower_ranks, member_ranks = np.concatenate(in_towers), np.concatenate(in_members)
    print(f"{given.model}: {len(rows)} of {count} users, {len(model.dataset.items)} items, k {given.k}")
    print({group: {name: round(w, 3) for name, w in own.items()} for group, own in model.weights.items()})
    print("depth  towers  members  both")
    for depth in DEPTHS:
        own, other = tower_ranks < depth, member_ranks < depth
        print(f"{depth:5}  {own.mean():.4f}  {other.mean():.4f}   {(own | other).mean():.4f}")
    served(recommender, json.loads(given.index), rows, np.concatenate(wanted))


def served(recommender: Recommender, index: JsonObject, rows: np.ndarray, wanted: np.ndarray) -> None:
    """Print the recall of the lists that are served through an index, and the time with and without it.

    Args:
        recommender: The blend.
        index: Type and options of the index.
        rows: (users,) the users.
        wanted: (users, k) their best items.
    """
    k = wanted.shape[1]
    for name, model in (("all items", recommender.model), (index, recommender.with_config({"index": index}).model)):
        users = model.user_representations(rows)
        best_items(model, users[:1], k)
        started = time.perf_counter()
        owners, items, _, places = best_items(model, users, k, model.seen_by(rows))
        spent = time.perf_counter() - started
        found = np.full(wanted.shape, -1)
        found[owners, places - 1] = items
        recall = (wanted[:, :, None] == found[:, None, :]).any(2).mean()
        print(f"{name}: recall@{k} {recall:.4f}, {1000 * spent / len(rows):.2f} ms for each user")


if __name__ == "__main__":
    main()
