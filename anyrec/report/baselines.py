"""Classical models that are fitted on the split of the model, to compare it with."""

from __future__ import annotations

from anyrec.core.config import Component, Config
from anyrec.core.errors import MissingDependency
from anyrec.core.progress import progress_bar
from anyrec.core.registry import Registry
from anyrec.data.dataset import Dataset
from anyrec.model.fitted import FittedModel
from anyrec.training.fit import fit_like


def fit_baselines(model: FittedModel, progress: bool = True) -> tuple[dict[str, FittedModel], list[str]]:
    """Fit the baselines on exactly the interactions that the model was trained on.

    Args:
        model: A model with its data.
        progress: Whether to show a progress bar.

    Returns:
        The fitted baselines by name, and why baselines are missing.
    """
    names, notes = choose(model.dataset, model.config, model.registry)
    fitted: dict[str, FittedModel] = {}
    with progress_bar("baselines", len(names), progress) as bar:
        for name in names:
            config = model.config.model_copy(update={"model": Component(type=name), "name": name})
            try:
                fitted[name] = fit_like(model, config).model
            except MissingDependency as error:
                notes.append(f"The baseline {name} is not measured: {error}.")
            bar.advance()
    return fitted, notes


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
    names, notes = [], []
    timed = dataset.column("timestamp") is not None
    content = any(name.split(".")[0] in ("text", "categorical") for name in dataset.features("item"))
    for name in registry.names("classical"):
        cls = registry.get("classical", name)
        if not cls.baseline or name == config.model.type:
            continue
        if cls.most_items is not None and len(dataset.items) > cls.most_items:
            notes.append(
                f"The baseline {name} is not measured: it stores a number for each pair of items, too many for "
                f"{len(dataset.items):,} items (limit {cls.most_items:,}). To measure it, name it in "
                "evaluation.baselines."
            )
        elif ("timestamps" in cls.needs and not timed) or ("content" in cls.needs and not content):
            continue
        else:
            names.append(name)
    return names, notes
