"""Classical models that are tuned and fitted on the split of the model, to compare it with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from anyrec.core.config import Component, Config
from anyrec.core.contracts import TrainingMatrix
from anyrec.core.errors import MissingDependency
from anyrec.core.progress import Bar, progress_bar
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import FittedModel
from anyrec.training.fit_classical import fit_classical, with_refit
from anyrec.training.fitting_models import fitting_models
from anyrec.training.tune import tune


@dataclass
class Baselines:
    """The baselines of a model.

    Attributes:
        fitted: The fitted baselines, by name.
        tuned: The options that were chosen on validation, by name of a baseline; without baselines that were not tuned.
        notes: Why baselines are missing.
    """

    fitted: dict[str, ClassicalModel] = field(default_factory=dict)
    tuned: dict[str, JsonObject] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fit_baselines(model: FittedModel, progress: bool = True) -> Baselines:
    """Tune the baselines on validation, and fit them for the part that the report measures.

    For the test part they are fitted on the training and validation parts, for the validation part on the training part
    only.

    Args:
        model: A model with its data.
        progress: Whether to show a progress bar.
    """
    names, notes = choose(model.dataset, model.config, model.registry)
    found = Baselines(notes=notes)
    matrices: dict[str, TrainingMatrix] = {}
    with progress_bar("baselines", len(names), progress) as bar:
        for name in names:
            try:
                found.fitted[name] = _fit(model, name, found, bar, matrices)
            except MissingDependency as error:
                notes.append(f"The baseline {name} is not measured: {error}.")
            bar.advance()
    return found


def _fit(
    model: FittedModel, name: str, found: Baselines, bar: Bar, matrices: dict[str, TrainingMatrix]
) -> ClassicalModel:
    """Tune and fit one baseline, and note its options in `found.tuned`; errors as for `tune`."""
    learning, config = model.required_learning(), model.config
    context = replace(model.context, warnings=[])
    trials = None if config.evaluation.tune_baselines else 1
    chosen = model.tuned.get(name)  # by a blend, on the same part
    trials = 1 if chosen is not None else trials
    tuned = tune(
        learning, config, model.registry, context, name, asked=chosen, trials=trials, bar=bar, matrices=matrices
    )
    if tuned.compared or chosen:
        found.tuned[name] = tuned.options
    if not len(learning.split.test) or not len(learning.split.validation):
        return tuned.model
    own = {"model": Component(type=name, **tuned.options), "name": name}
    refit = with_refit(config.model_copy(update=own))
    fitted = fit_classical(refit, learning, learning.final_split(refit), model.registry, context)
    return replace(fitted, before_refit={config.training.metric: tuned.value})


def choose(dataset: Dataset, config: Config, registry: Registry) -> tuple[list[str], list[str]]:
    """Choose the baselines: `evaluation.baselines`, or all that fit the data.

    Returns:
        Names of the classical models to fit, and why others are omitted.

    Raises:
        ConfigError: If `evaluation.baselines` names an unknown model.
    """
    if config.evaluation.baselines != "auto":
        for place, name in enumerate(config.evaluation.baselines):
            registry.get("classical", name, f"/evaluation/baselines/{place}")
        return list(config.evaluation.baselines), []
    names, large = fitting_models(dataset, registry)
    names, large = ([name for name in part if name != config.model.type] for part in (names, large))
    return names, [_too_large(name, names, dataset, registry) for name in large]


def _too_large(name: str, names: list[str], dataset: Dataset, registry: Registry) -> str:
    """Return the note on a baseline that is left out for the size of the catalogue, and what that means."""
    limit = registry.get("classical", name).most_items
    others = [one for one in names if registry.get("classical", one).by_history]
    instead = f" The baselines {', '.join(others)} score by the same histories and stand in for it." if others else ""
    return (
        f"The baseline {name} is not measured: it stores a number for each pair of items, too many for "
        f"{len(dataset.items):,} items (limit {limit:,}).{instead} If it would be the best of "
        "the classical models, the comparison is too favourable. To measure it, name it in evaluation.baselines."
    )
