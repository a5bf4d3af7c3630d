"""How well search finds: items by their own titles, and what is like a poster that the projection has not seen.

    HF_HUB_OFFLINE=1 python benchmarks/search.py --model_path MODEL

MODEL: a two-tower trained on ML-1M (docs/search.md has the command). All of it in one run:
- each of 1,000 items looked for by its title: share found first and among the first 10, by space, and milliseconds a query;
- the two ways into the tower's space: recall of held-out items from their own texts or posters (the tower knows them, the regression
  does not), chance being 10 over the items;
- 600 posters left out of the regression: how alike the genres of the first 10 are to the poster's own (Jaccard; the item itself is no
  hit), by looks, by the trained encoder, by each of the two projected, and by looks and projection together as `auto` weighs them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from anyrec.data.item_facts import category_feature, indicators
from anyrec.pipeline.item_search import searcher
from anyrec.recommender import Recommender
from anyrec.retrieval.semantic.projection import _ridge
from anyrec.retrieval.semantic.search import TOWER, Search, _spread

TITLES, POSTERS, K = 1000, 600, 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, required=True)
    recommender = Recommender.load(parser.parse_args().model_path)
    titles(recommender)
    posters(recommender)


def titles(recommender: Recommender):
    rng = np.random.default_rng(0)
    names = recommender.dataset.items.column("text.title").to_pylist()
    rows = rng.permutation(len(names))[:TITLES]
    ids = recommender.dataset.ids("item").to_pylist()
    for space in ("text", "auto", "tower"):
        recommender.search(text="warm", space=space)
        started, ranks = time.perf_counter(), []
        for row in rows:
            found = recommender.search(text=names[row], k=K, space=space).column("item_id").to_pylist()
            ranks.append(found.index(ids[row]) if ids[row] in found else K)
        spent = 1000 * (time.perf_counter() - started) / len(rows)
        first, among = np.mean(np.array(ranks) == 0), np.mean(np.array(ranks) < K)
        print(f"title, {space:6} first {first:.3f}, among {K}: {among:.3f}; {spent:.1f} ms")
    for kind in ("text", "image"):
        projection = searcher(recommender.model).place(kind, "tower").projection
        assert projection is not None
        print(f"{kind} into the tower: {projection.recall}, chosen: {projection.way}")


def posters(recommender: Recommender):
    search: Search = searcher(recommender.model)
    projection = search.place("image", "tower").projection
    name = category_feature(recommender.dataset, recommender.config.evaluation.category)
    assert projection is not None and name is not None
    tower = projection.items
    traits = indicators(recommender.dataset, "item", name)[0].toarray()
    features = {space: search.place("image", space).space.items() for space in ("looks", "image")}
    told = np.flatnonzero(features["looks"].any(1))
    rng = np.random.default_rng(0)
    held = rng.permutation(told)[:POSTERS]
    rest = np.setdiff1d(told, held)
    scores = {"chance": rng.random((len(held), len(tower)))}
    for space, vectors in features.items():
        scores[space] = vectors[held] @ vectors.T
        offset, weights = _ridge(vectors[rest], tower[rest], 1.0)
        made = (vectors[held] - offset) @ weights
        scores[f"{space} -> tower"] = made / np.linalg.norm(made, axis=1, keepdims=True) @ tower.T
    own, other = (1 - TOWER["image"]) / _spread(features["looks"]), TOWER["image"] / _spread(tower)
    scores["auto"] = own * scores["looks"] + other * scores["looks -> tower"]
    for space, values in scores.items():
        values[np.arange(len(held)), held] = -np.inf
        values[:, np.setdiff1d(np.arange(len(tower)), told)] = -np.inf
        best = np.argsort(-values, 1)[:, :K]
        both = (traits[held][:, None] * traits[best]).sum(2)
        either = np.maximum(traits[held][:, None], traits[best]).sum(2)
        print(f"poster, {space:15} Jaccard {(both / either).mean():.3f}, share a genre {(both > 0).mean():.3f}")


if __name__ == "__main__":
    main()
