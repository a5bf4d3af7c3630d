"""Search for items by their own titles, and for items similar to posters that the projection was not fitted on.

    HF_HUB_OFFLINE=1 python benchmarks/search.py --model_path MODEL

MODEL: a two-tower trained on ML-1M (docs/search.md has the command). One run measures:
- search for each of 1,000 items by its title: the fraction found first and among the first 10, for each space, and
  milliseconds a query;
- the two methods of projection into the tower's space: recall of held-out items by their own texts or posters (the
  tower was trained on them, the regression was not fitted on them); by chance it is 10 divided by the number of items;
- 600 posters that the regression was not fitted on: the Jaccard similarity of the genres of the first 10 to the
  poster's own, without the item itself, in the space `visual`, by the trained encoder, by each of the two projected,
  and by `visual` and its projection together as `auto` weights them.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from common import argument_parser

from anyrec.core.unit_vectors import unit_rows
from anyrec.data.item_facts import category_feature, indicators
from anyrec.pipeline.item_search import searcher
from anyrec.recommender import Recommender
from anyrec.retrieval.semantic.projection import ridge_regression
from anyrec.retrieval.semantic.search import TOWER_WEIGHT, Search, cosine_deviation

TITLES, POSTERS, K = 1000, 600, 10


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model_path", type=Path, required=True)
    recommender = Recommender.load(parser.parse_args().model_path)
    titles(recommender)
    posters(recommender)


def titles(recommender: Recommender) -> None:
    """Search for items by their titles in each space, and print the recall of the projections."""
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
        projection = searcher(recommender.model).space_items(kind, "tower").projection
        assert projection is not None
        print(f"{kind} into the tower: {projection.recall}, chosen: {projection.method}")


def posters(recommender: Recommender) -> None:
    """Print how similar the genres of the items found for a poster are to its own, by space."""
    search: Search = searcher(recommender.model)
    projection = search.space_items("image", "tower").projection
    name = category_feature(recommender.dataset, recommender.config.evaluation.category)
    assert projection is not None and name is not None
    tower = projection.items
    traits = indicators(recommender.dataset, "item", name)[0].toarray()
    features = {space: search.space_items("image", space).space.item_vectors() for space in ("visual", "image")}
    described = np.flatnonzero(features["visual"].any(1))
    rng = np.random.default_rng(0)
    held = rng.permutation(described)[:POSTERS]
    rest = np.setdiff1d(described, held)
    scores = {"chance": rng.random((len(held), len(tower)))}
    for space, vectors in features.items():
        scores[space] = vectors[held] @ vectors.T
        offset, weights = ridge_regression(vectors[rest], tower[rest], 1.0)
        made = (vectors[held] - offset) @ weights
        scores[f"{space} -> tower"] = unit_rows(made) @ tower.T
    weight = TOWER_WEIGHT["image"]
    own, other = (1 - weight) / cosine_deviation(features["visual"]), weight / cosine_deviation(tower)
    scores["auto"] = own * scores["visual"] + other * scores["visual -> tower"]
    for space, values in scores.items():
        values[np.arange(len(held)), held] = -np.inf
        values[:, np.setdiff1d(np.arange(len(tower)), described)] = -np.inf
        best = np.argsort(-values, 1)[:, :K]
        both = (traits[held][:, None] * traits[best]).sum(2)
        either = np.maximum(traits[held][:, None], traits[best]).sum(2)
        print(
            f"poster, {space:15} Jaccard {(both / either).mean():.3f}, "
            f"fraction with a common genre {(both > 0).mean():.3f}"
        )


if __name__ == "__main__":
    main()
