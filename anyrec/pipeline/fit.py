"""Fit, evaluate, save and load a pipeline together with the model that it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from anyrec.core.config import Config, PipelineConfig
from anyrec.core.errors import Fault, ModelError
from anyrec.core.ranks import ranks_of
from anyrec.core.runtime import seeded
from anyrec.core.saved_files import AGAIN, damaged, read_arrays
from anyrec.core.timing import timed
from anyrec.core.types import JsonObject
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, held_out, refuse_refitted
from anyrec.evaluation.ranking import Ranking, ranking_metrics
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.pipeline.contracts import Source
from anyrec.pipeline.pipeline import Pipeline
from anyrec.pipeline.ranking.ranker import load_ranker, make_ranker
from anyrec.pipeline.ranking.train_ranker import train_ranker
from anyrec.pipeline.requests import requests_before

FOLDER = "pipeline"


def check_pipeline(model: ModelData) -> list[str]:
    """Check the config's pipeline against the data, before training.

    Returns:
        Notes for the user, such as values of a rule that no item has.

    Raises:
        ConfigError: With every fault.
    """
    if model.config.pipeline is None:
        return []
    pipeline = Pipeline(model.config.pipeline, model.registry)
    pipeline.check(model)
    return pipeline.notes(model)


def same_pipeline(one: Config, other: Config) -> bool:
    """Return whether two configs have the same pipeline, also if they set its values by different keys."""
    sections = (None if config.pipeline is None else config.pipeline.model_dump(mode="json") for config in (one, other))
    return next(sections) == next(sections)


def fit_stages(
    model: FittedModel, progress: bool, former: Pipeline | None = None
) -> tuple[FittedModel, Pipeline | None, list[str]]:
    """Fit the pipeline of the model's config; arguments as for `fit_pipeline`.

    Returns:
        The model, with histories if there is a pipeline; the pipeline; notes for the user.
    """
    if model.config.pipeline is None:
        return model, None, []
    model = model.with_histories()
    return model, *fit_pipeline(model, former, progress=progress)


@timed("pipeline fitted")
def fit_pipeline(
    model: FittedModel, former: Pipeline | None = None, *, progress: bool = True
) -> tuple[Pipeline | None, list[str]]:
    """Fit the sources and the ranker of the config's pipeline.

    Args:
        model: A fitted model; if it has its data, it keeps histories (`FittedModel.with_histories`).
        former: A fitted pipeline of the model. Its sources and its ranker are kept if the config has the same.
        progress: Show progress bars.

    Returns:
        The pipeline (None if the config has none), and notes for the user.

    Raises:
        ConfigError: An option does not fit the data.
        ModelError: A stage learns from the data, and the model was loaded without it.
    """
    config, learning = model.config.pipeline, model.learning
    if config is None:
        return None, []
    pipeline = Pipeline(config, model.registry)
    pipeline.check(model)
    if former is not None and _first_stages(former.config) == _first_stages(config):
        pipeline.sources, pipeline.ranker, pipeline.measured = former.sources, former.ranker, former.measured
        return pipeline, []
    if learning is None:
        if config.rank is not None or any(_learns(source) for source in pipeline.sources):
            what = "its sources and ranker learn from the data, and this model was loaded without its data."
            hint = "Train with this pipeline, or in Python call with_data(dataset) first. Rules alone need no data."
            raise ModelError(Fault("/pipeline", what, hint))
        return pipeline, []
    positives = learning.positives_learned(model.config)
    for source in pipeline.sources:
        source.fit(model, positives)
    if config.rank is None:
        return pipeline, []
    with seeded(model.config.seed, model.device):
        ranker = make_ranker(model, config.rank, pipeline.source_names, model.registry)
        ranker.to(model.device)
        notes = train_ranker(pipeline, ranker, model, learning.ranker_rows(model.config), progress)
    pipeline.ranker = ranker.eval()
    return pipeline, notes


def measure_pipeline(model: FittedModel, pipeline: Pipeline, part: Part) -> dict[str, float]:
    """Return the ranking metrics of the pipeline's lists on a part of the split, at the config's k."""
    ks = model.config.evaluation.k
    return ranking_metrics(rank_through(model, pipeline, part, max(ks)), ks)


def rank_through(model: FittedModel, pipeline: Pipeline, part: Part, k: int, held: HeldOut | None = None) -> Ranking:
    """Rank held-out items in the lists that the whole pipeline would have served.

    Args:
        model: A model with its data.
        pipeline: Its pipeline.
        part: The part of the split.
        k: Length of the lists.
        held: The held-out items of the part; computed if None.

    Returns:
        Ranks in the lists, infinite for an item that is not listed. Items with equal scores share the mean of their
        ranks, unless a rule changed the order of the list.

    Raises:
        ModelError: The model was trained on the part, or was loaded without its data.
    """
    refuse_refitted(model, part)
    held = held or held_out(model, part)
    rows, items = held.targets.take(np.flatnonzero(held.targets.counts()))
    ranks, users, start = np.full(len(items), np.inf), np.empty(0, np.int64), 0
    lists = np.full((int(rows.max(initial=-1)) + 1, k), -1)
    for block, request in requests_before(model, part, held, tokens=pipeline.ranker is not None):
        found = pipeline.run(request, k, held.rankable)
        low, high = np.searchsorted(rows, [start, start + len(block)])
        ranks[low:high] = _ranks(found.items, found.scores, rows[low:high] - start, items[low:high])
        lists[start : start + len(block), : found.items.shape[1]] = found.items
        users, start = np.append(users, block), start + len(block)
    return Ranking(users[rows], items, ranks, users, lists, np.zeros(len(users), np.int64))


def save_pipeline(pipeline: Pipeline, folder: Path) -> None:
    """Write what the sources and the ranker learned into a new folder."""
    folder.mkdir()
    for number, source in enumerate(pipeline.sources):
        state = source.state()
        if state:
            arrays = {name: np.asarray(values, order="C") for name, values in state.items()}
            save_file(arrays, folder / f"source-{number}.safetensors")
    if pipeline.ranker is not None:
        pipeline.ranker.save(folder)


def load_pipeline(model: FittedModel, folder: Path) -> Pipeline | None:
    """Load what `save_pipeline` wrote.

    Returns:
        The pipeline; None if the config has none.

    Raises:
        ModelError: A file is missing or damaged, or the config does not fit the model's records.
    """
    config = model.config.pipeline
    if config is None:
        return None
    with damaged(folder, "the pipeline does not fit the model"):
        pipeline = Pipeline(config, model.registry)
        pipeline.check(model)
    for number, source in enumerate(pipeline.sources):
        path = folder / f"source-{number}.safetensors"
        if path.is_file():
            state = read_arrays(path)
            with damaged(path, f"the state of the source '{source.type}' cannot be used"):
                source.restore(state)
                source.check_restored(model)
        elif _learns(source):
            what = f"the state of the source '{source.type}' is missing."
            raise ModelError(Fault(str(path), what, AGAIN, "damaged"))
    if config.rank is not None:
        pipeline.ranker = load_ranker(folder, config.rank, model, pipeline.source_names, model.registry)
    return pipeline


def _first_stages(config: PipelineConfig) -> JsonObject:
    """Return the stages of a pipeline that learn from the data."""
    return config.model_dump(mode="json", include={"retrieve", "rank"})


def _learns(source: Source) -> bool:
    return type(source).fit is not Source.fit


def _ranks(items: np.ndarray, scores: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rank items in lists.

    Args:
        items: (users, k) listed item rows, -1 past the end.
        scores: (users, k) their scores.
        rows: (targets,) list of each target.
        wanted: (targets,) item row of each target.

    Returns:
        (targets,) the mean rank of the items with the target's score if the scores of its list descend, else its place
        from 1; infinite if it is not listed.
    """
    if not items.shape[1]:
        return np.full(len(rows), np.inf)
    scores = np.where(items >= 0, scores, -np.inf)
    descend = np.all(scores[:, 1:] <= scores[:, :-1], axis=1)
    found = np.equal(items[rows], wanted[:, None])
    place = found.argmax(1)
    ties = ranks_of(*(torch.from_numpy(array) for array in (scores, rows, scores[rows, place]))).numpy()
    ranks = np.where(descend[rows], ties, place + 1)
    return np.where(found.any(1), ranks, np.inf)
