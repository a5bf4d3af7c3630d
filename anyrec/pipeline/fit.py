"""A pipeline's sources and ranker fitted, measured, saved and loaded with the model they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from anyrec.core.errors import Fault, ModelError
from anyrec.core.runtime import seeded
from anyrec.core.saved_files import AGAIN, damaged, read_arrays
from anyrec.data.labels import label_interactions
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, held_out, refuse_refitted
from anyrec.evaluation.ranking import Ranking, ranking_metrics
from anyrec.pipeline.pipeline import Pipeline
from anyrec.pipeline.ranking.ranker import load_ranker, make_ranker
from anyrec.pipeline.ranking.train_ranker import train_ranker
from anyrec.pipeline.requests import requests_before

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

FOLDER = "pipeline"


def check_pipeline(recommender: Recommender) -> None:
    """Raises ConfigError where the config's pipeline does not fit the data: asked before anything is trained."""
    if recommender.config.pipeline is not None:
        Pipeline(recommender.config.pipeline, recommender.registry).check(recommender)


def fit_pipeline(recommender: Recommender, *, progress: bool = True) -> None:
    """Make the config's pipeline of a fitted recommender, its sources and its ranker taught; what to know of it goes to its notes."""
    config = recommender.config.pipeline
    if config is None:
        return
    pipeline = Pipeline(config, recommender.registry)
    pipeline.check(recommender)
    if recommender.split is None and (config.rank is not None or any(_learns(one) for one in pipeline.sources)):
        what = "its sources and ranker learn from the data, and this model was loaded without them."
        raise ModelError(Fault("/pipeline", what, "Use with_data(dataset) first."))
    if recommender.split is not None and (recommender.history is None or recommender.history_parts is None):
        recommender._remember(label_interactions(recommender.dataset, recommender.config.data), events=True)
    if recommender.split is not None:
        positives = recommender.positives_learned()
        for source in pipeline.sources:
            source.fit(recommender, positives)
    recommender.pipeline = pipeline
    if config.rank is not None:
        with seeded(recommender.config.seed, recommender.device):
            ranker = make_ranker(recommender, config.rank, pipeline.source_names, recommender.registry)
            ranker.to(recommender.device)
            rows = recommender.held_for_ranker()
            recommender.notes += train_ranker(pipeline, ranker, recommender, rows, progress)
        pipeline.ranker = ranker.eval()


def measure_pipeline(recommender: Recommender, part: Part) -> dict[str, float]:
    """The metrics of the lists, at the config's k."""
    ks = recommender.config.evaluation.k
    metrics = ranking_metrics(rank_through(recommender, part, max(ks)), ks)
    return metrics


def rank_through(recommender: Recommender, part: Part, k: int, held: HeldOut | None = None) -> Ranking:
    """The ranks of held-out items in the lists of k that the whole pipeline would have served; infinite for one not listed.
    Equal scores share their places where no rule has moved them. held: that part, where it is at hand."""
    refuse_refitted(recommender, part)
    pipeline = recommender.pipeline
    assert pipeline is not None
    held = held or held_out(recommender, part)
    rows, items = held.targets.take(np.flatnonzero(held.targets.counts()))
    ranks, users, start = np.full(len(items), np.inf), np.empty(0, np.int64), 0
    lists = np.full((int(rows.max(initial=-1)) + 1, k), -1)
    for here, request in requests_before(recommender, part, held, tokens=pipeline.ranker is not None):
        found = pipeline.run(request, k, held.rankable)
        low, high = np.searchsorted(rows, [start, start + len(here)])
        ranks[low:high] = _ranks(found.items, found.scores, rows[low:high] - start, items[low:high])
        lists[start : start + len(here), : found.items.shape[1]] = found.items
        users, start = np.append(users, here), start + len(here)
    return Ranking(users[rows], items, ranks, users, lists, np.zeros(len(users), np.int64))


def save_pipeline(pipeline: Pipeline, folder: Path) -> None:
    folder.mkdir()
    for number, source in enumerate(pipeline.sources):
        state = source.state()
        if state:
            arrays = {name: np.ascontiguousarray(values) for name, values in state.items()}
            save_file(arrays, folder / f"source-{number}.safetensors")
    if pipeline.ranker is not None:
        pipeline.ranker.save(folder)


def load_pipeline(recommender: Recommender, folder: Path) -> Pipeline | None:
    """What `save_pipeline` wrote; None if the config has no pipeline.

    Raises ModelError if a file is missing or damaged, or the config does not fit the model's records.
    """
    config = recommender.config.pipeline
    if config is None:
        return None
    with damaged(folder, "the pipeline does not fit the model"):
        pipeline = Pipeline(config, recommender.registry)
        pipeline.check(recommender)
    for number, source in enumerate(pipeline.sources):
        path = folder / f"source-{number}.safetensors"
        if path.is_file():
            state = read_arrays(path)
            with damaged(path, f"what the source '{source.type}' learned cannot be used"):
                source.restore(state)
                source.check_restored(recommender)
        elif _learns(source):
            what = f"what the source '{source.type}' learned is missing."
            raise ModelError(Fault(str(path), what, AGAIN, "damaged"))
    if config.rank is not None:
        pipeline.ranker = load_ranker(folder, config.rank, recommender, pipeline.source_names, recommender.registry)
    return pipeline


def _learns(source: Any) -> bool:
    from anyrec.pipeline.contracts import Source

    return type(source).fit is not Source.fit


def _ranks(items: np.ndarray, scores: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(targets,) the rank of item `wanted[i]` in list `rows[i]`: the middle of those with its score, where the list's scores descend,
    else its place; infinite where it is not listed."""
    if not items.shape[1]:
        return np.full(len(rows), np.inf)
    scores = np.where(items >= 0, scores, -np.inf)
    descend = np.all(scores[:, 1:] <= scores[:, :-1], axis=1, keepdims=True)[:, 0]
    found = np.equal(items[rows], wanted[:, None])
    place = found.argmax(1)
    own = scores[rows, place][:, None]
    greater, same = (scores[rows] > own).sum(1), (scores[rows] == own).sum(1)
    ranks = np.where(descend[rows], 1 + greater + (same - 1) / 2, place + 1)
    return np.where(found.any(1), ranks, np.inf)
