"""Keys of a config that name something of the data, checked against a dataset before anything is trained."""

from __future__ import annotations

import numpy as np

from anyrec.core.config import MAX_ROWS, Config, DataConfig
from anyrec.core.errors import Fault, did_you_mean
from anyrec.data.checks.temporal_roles import temporal_names
from anyrec.data.dataset import Dataset


def data_faults(config: Config, dataset: Dataset) -> list[Fault]:
    """Roles and a category of features that the data lack, and keys of `data` by which the data were not read."""
    faults = _not_read_by(config.data, dataset)
    names = temporal_names(dataset.users, dataset.items)
    for name, role in config.data.roles.items():
        where = f"/data/roles/{name}"
        if name not in names:
            what = "the data have no such temporal feature."
            faults.append(Fault(where, what, did_you_mean(name, names), "unknown role"))
        elif dataset.roles.get(name, role) != role:
            what = f"the data were read with '{name}' as {dataset.roles[name]}, not as {role}."
            faults.append(Fault(where, what, "Read them with it: Dataset.read(path, config.data).", "other role"))
    category = config.evaluation.category
    if category is not None:
        known = [name for name in dataset.features("item") if name.startswith("categorical.")]
        if category not in known:
            what = f"items have no categorical feature '{category}'."
            faults.append(Fault("/evaluation/category", what, did_you_mean(category, known), "unknown feature"))
    return faults


def _not_read_by(options: DataConfig, dataset: Dataset) -> list[Fault]:
    """Limits that the data exceed: they were read without them."""
    counts = (np.bincount(rows) for rows in (dataset.user_rows, dataset.item_rows))
    users, items = (int(found[found > 0].min(initial=MAX_ROWS)) for found in counts)
    checks = {
        "max_users": len(dataset.users) > (options.max_users or MAX_ROWS),
        "max_items": len(dataset.items) > (options.max_items or MAX_ROWS),
        "max_interactions": len(dataset.interactions) > (options.max_interactions or MAX_ROWS),
        "min_user_interactions": users < options.min_user_interactions,
        "min_item_interactions": items < options.min_item_interactions,
    }
    what, hint = "the data were read without this limit.", "Read them with it: Dataset.read(path, config.data)."
    return [Fault(f"/data/{key}", what, hint, "not read by") for key, wrong in checks.items() if wrong]
