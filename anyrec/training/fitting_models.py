"""The classical models that fit a dataset."""

from __future__ import annotations

from anyrec.core.registry import Registry
from anyrec.data.dataset import Dataset


def fitting_models(dataset: Dataset, registry: Registry) -> tuple[list[str], list[str]]:
    """Return the classical models to compare a model with, or to blend it with.

    Args:
        dataset: The data.
        registry: The components.

    Returns:
        Names of those that are baselines and that the data and the size of the catalogue allow; and of those for which
        the catalogue is too large (`Classical.most_items`).
    """
    names, too_large = [], []
    timed = dataset.column("timestamp") is not None
    content = any(name.split(".")[0] in ("text", "categorical") for name in dataset.features("item"))
    for name in registry.names("classical"):
        cls = registry.get("classical", name)
        if not cls.baseline or ("timestamps" in cls.needs and not timed) or ("content" in cls.needs and not content):
            continue
        if cls.most_items is not None and len(dataset.items) > cls.most_items:
            too_large.append(name)
        else:
            names.append(name)
    return names, too_large
