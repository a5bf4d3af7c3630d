"""Attach the training data to a loaded model, so that it can be evaluated and a pipeline can be fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from anyrec.core.errors import DataError, Fault, ModelError
from anyrec.core.outside import ALLOW
from anyrec.data.dataset import Dataset
from anyrec.data.learning import LearningData
from anyrec.model.fitted import FittedModel
from anyrec.model.user_interactions import histories_of


def own_data(model: FittedModel) -> Dataset:
    """Read the tables that a model's config names in `data.sources`.

    Raises:
        ConfigError: If it names none.
        ModelError: If the model is not trusted: its tables and queries are outside its folder.
    """
    if model.config.data.sources is not None and not model.context.trusted:
        what = "the model names the tables that it was trained on, outside its folder."
        raise ModelError(Fault("/data/sources", what, f"Give the data. {ALLOW}", "untrusted"))
    return Dataset.from_sources(model.config.data, model.registry)


def with_data(model: FittedModel, dataset: Dataset) -> tuple[FittedModel, list[str]]:
    """Return a model with its data, which is labelled and split again as for the training.

    Args:
        model: A loaded model.
        dataset: The data that it was trained on.

    Returns:
        The model, and notes on the data and the split for the user.

    Raises:
        DataError: If this is not the data that the model was trained on.
        ModelError: If the split comes from a file and the model is not trusted, or if users, items or interactions were
            added to the model.
    """
    config = model.config
    if model.extended:
        what = "users, items or interactions were added to this model after training."
        hint = "Use the model as it was before, or measure with lists of your own (`anyrec evaluate --truth`)."
        raise ModelError(Fault("data", what, hint, "extended"))
    if config.split.file is not None and not model.context.trusted:
        what = f"the model names the file of its split, outside its folder: {config.split.file!r}."
        raise ModelError(Fault("/split/file", what, ALLOW, "untrusted"))
    learning, notes = LearningData.make(dataset.sorted(), config)
    if model.fingerprint is not None and not learning.dataset.has_fingerprint(model.fingerprint):
        what = "this is not the data that the model was trained on."
        hint = "Give that, or measure with lists of your own (`anyrec evaluate --truth`)."
        raise DataError(Fault("data", what, hint, "other data"))
    root = Path(config.data.image_root) if config.data.image_root else dataset.root
    context = replace(model.request_context(root), items=learning.dataset.items, open_files=True)
    seen, seen_parts = learning.seen
    fresh = replace(
        model, dataset=learning.dataset, learning=learning, context=context, seen=seen, seen_parts=seen_parts
    )
    if model.history is not None:
        history, history_parts = histories_of(learning, config)
        fresh = replace(fresh, history=history, history_parts=history_parts)
    return fresh.with_prepared_features(), notes
