"""Fit the model that is delivered: towers or a classical model, blended and fitted again as the config says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from anyrec.core.config import Config
from anyrec.core.contracts import Context
from anyrec.core.registry import Registry
from anyrec.data.learning import LearningData
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.training.blend import Chosen, blended, choose_blend, fit_members
from anyrec.training.fit import Fitted, fit
from anyrec.training.loop import FitOptions


def fit_final(
    config: Config,
    learning: LearningData,
    registry: Registry,
    context: Context,
    options: FitOptions,
    measure: Callable[[FittedModel], dict[str, float]],
) -> Fitted:
    """Fit the model of a config, choose its blend, and fit again what learns from the validation part as well.

    Args:
        config: Complete and checked against the data.
        learning: The data, its labels and its split.
        registry: The components.
        context: Folder of files, permissions, seed and device.
        options: Options of the training that do not change its result.
        measure: Returns the metrics of a model on the validation part. Called once, before anything learns from that
            part; not called if nothing does.

    Returns:
        The model. Its `before_refit` has the result of `measure`.

    Raises:
        ConfigError: For options that do not fit the data.
        DataError: If no positive interaction is left to train on.
    """
    fitted = fit(config, learning, registry, context, options=options)
    if not options.processes.first:
        return _with_the_first(fitted, config, learning, registry, context, options)
    model, chosen = fitted.model, None
    if isinstance(model, TwoTowerModel):
        chosen = choose_blend(model, options.progress)
    notes = [*fitted.notes, *(chosen.explained() if chosen is not None else ())]
    if chosen is not None and isinstance(model, TwoTowerModel):
        model = blended(model, chosen)
    members_again = _fits_members_again(config, chosen)
    again = config.training.refit or members_again
    if not again or not len(learning.split.validation):
        return replace(fitted, model=model, notes=notes)
    before = dict(measure(model))
    result = fitted.result
    if config.training.refit:
        fitted = _again(fitted, config, learning, registry, context, options)
        notes += fitted.notes
    model = fitted.model
    if chosen is not None and isinstance(model, TwoTowerModel):
        model = blended(model, chosen, fit_members(model, chosen) if members_again else None)
    return Fitted(replace(model, before_refit=before), result, list(dict.fromkeys(notes)))


def _again(
    fitted: Fitted, config: Config, learning: LearningData, registry: Registry, context: Context, options: FitOptions
) -> Fitted:
    """Fit again on the training and the validation part, for as many epochs as were best."""
    best = None if fitted.result is None else fitted.result.best_epoch
    split, within = learning.final_split(config), options.within("refit")
    return fit(config, learning, registry, context, split=split, epochs=best, options=within)


def _with_the_first(
    fitted: Fitted, config: Config, learning: LearningData, registry: Registry, context: Context, options: FitOptions
) -> Fitted:
    """Take part in the second training, as the first process decides; it alone has the blend and the metrics."""
    if config.training.refit and len(learning.split.validation):
        return _again(fitted, config, learning, registry, context, options)
    return fitted


def _fits_members_again(config: Config, chosen: Chosen | None) -> bool:
    """Whether the classical members of a blend learn from the validation part as well."""
    return chosen is not None and bool(chosen.choice.members) and config.blend is not None and config.blend.refit
