"""Checks that a config and a dataset fit together."""

from __future__ import annotations

import numpy as np

from anyrec.core.config import MAX_ROWS, Config, DataConfig
from anyrec.core.errors import Fault, did_you_mean
from anyrec.data.checks.temporal_roles import unknown_roles
from anyrec.data.tables import Tables


def data_faults(config: Config, dataset: Tables) -> list[Fault]:
    """Check a config against a dataset before anything is trained.

    Returns:
        Faults for roles and an evaluation category of features that the data lack, and for keys of the config's `data`
        section that the data were not read by.
    """
    faults = [*_not_read_by(config.data, dataset), *unknown_roles(config.data.roles, dataset.users, dataset.items)]
    for name, role in config.data.roles.items():
        if dataset.roles.get(name, role) != role:
            what = f"the data were read with '{name}' as {dataset.roles[name]}, not as {role}."
            hint = "Read them with it: Dataset.read(path, config.data)."
            faults.append(Fault(f"/data/roles/{name}", what, hint, "other role"))
    category = config.evaluation.category
    if category is not None:
        known = [name for name in dataset.features("item") if name.startswith("categorical.")]
        if category not in known:
            what = f"items have no categorical feature '{category}'."
            faults.append(Fault("/evaluation/category", what, did_you_mean(category, known), "unknown feature"))
    return faults


def _not_read_by(options: DataConfig, dataset: Tables) -> list[Fault]:
    """Return a fault for each limit that the data exceed, which shows that they were read without it."""
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
