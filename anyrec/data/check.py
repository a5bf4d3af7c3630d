"""Keys of a config that name something of the data, checked against a dataset before anything is trained."""

from __future__ import annotations

from anyrec.config import Config
from anyrec.data.dataset import Dataset
from anyrec.data.roles import temporal_names
from anyrec.errors import Fault, did_you_mean


def data_faults(config: Config, dataset: Dataset) -> list[Fault]:
    """Roles and a category of features that the data lack, and roles other than those by which the data were read."""
    faults = []
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
