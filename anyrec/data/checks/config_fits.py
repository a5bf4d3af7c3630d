"""Checks that a config and a dataset fit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from anyrec.core.config import MAX_ROWS, TWO_TOWER, Config, DataConfig, Feature
from anyrec.core.effects import Idle, idle_key
from anyrec.core.errors import Fault, did_you_mean, suggestion
from anyrec.core.registry import Registry
from anyrec.core.strict_json import pointer
from anyrec.core.values import show
from anyrec.data.checks.temporal_roles import unknown_roles
from anyrec.data.formats.columns import ALLOWED
from anyrec.data.histories import GROUP as HISTORY
from anyrec.data.ids import SIDES, Side
from anyrec.data.labels import label_interactions
from anyrec.data.order import has_clock
from anyrec.data.tables import Tables


def data_faults(config: Config, dataset: Tables, registry: Registry) -> list[Fault]:
    """Check a config against a dataset before anything is trained.

    Args:
        config: Complete config.
        dataset: The data.
        registry: The components.

    Returns:
        Faults for what the config names and the data lack (roles, positive types, the category of the
        report, what classical models need), for encoders that cannot read their features, and for keys of the config's
        `data` section that the data were not read by.
    """
    faults = [*_not_read_by(config.data, dataset), *unknown_roles(config.data.roles, dataset.users, dataset.items)]
    for name, role in config.data.roles.items():
        if dataset.roles.get(name, role) != role:
            what = f"the data were read with '{name}' as {dataset.roles[name]}, not as {role}."
            hint = "Read them with it: Dataset.read(path, config.data)."
            faults.append(Fault(f"/data/roles/{name}", what, hint, "other role"))
    faults += _unknown_types(config.data, dataset)
    faults += _unmet_needs(config, dataset, registry)
    faults += _unreadable(config, dataset, registry)
    return faults + category_faults(config, dataset)


def category_faults(config: Config, dataset: Tables) -> list[Fault]:
    """Return a fault for each feature that items lack of those that `evaluation.category` and `.traits` name."""
    named = {} if config.evaluation.category is None else {"/evaluation/category": config.evaluation.category}
    named |= {f"/evaluation/traits/{n}": name for n, name in enumerate(config.evaluation.traits or [])}
    known = [name for name in dataset.features("item") if name.startswith("categorical.")]
    return [
        Fault(where, f"items have no categorical feature '{name}'.", did_you_mean(name, known), "unknown feature")
        for where, name in named.items()
        if name not in known
    ]


def _unknown_types(options: DataConfig, dataset: Tables) -> list[Fault]:
    """Return a fault if `data.positive_types` leaves no positive: none of its types occurs, and no label is 1."""
    if options.positive_types is None or label_interactions(dataset, options, checked=False).positive.any():
        return []
    column = dataset.column("interaction_type")
    known = [] if column is None else [str(name) for name in column.unique().drop_null().to_pylist()]
    wanted = [name for name, weight in options.positive_types.items() if weight > 0]
    if any(name in known for name in wanted):
        return []  # other keys leave no positive, such as `min_rating`
    listed = ", ".join(map(show, wanted)) or "no type with a weight above 0"
    if not known:
        return [Fault("/data/positive_types", "no interaction has a type.", "Leave it out.", "unknown type")]
    hint = did_you_mean(wanted[0], known) if wanted else f"Known: {', '.join(known)}."
    return [Fault("/data/positive_types", f"no interaction is positive: it names {listed}.", hint, "unknown type")]


def _unmet_needs(config: Config, dataset: Tables, registry: Registry) -> list[Fault]:
    """Return a fault for each classical model that the config names and the data have not enough for."""
    named = []
    if config.model.type != TWO_TOWER:
        named.append(("/model/type", config.model.type))
    if config.evaluation.baselines != "auto":
        named += [(f"/evaluation/baselines/{n}", name) for n, name in enumerate(config.evaluation.baselines)]
    if config.blend is not None and config.blend.models != "auto":
        named += [(f"/blend/models/{n}/type", one.type) for n, one in enumerate(config.blend.models)]
    has = {
        "timestamps": dataset.column("timestamp") is not None,
        "content": any(name.split(".")[0] in ("text", "categorical") for name in dataset.features("item")),
    }
    lacks = {"timestamps": "no interaction has a timestamp", "content": "items have no text and no category"}
    known = registry.names("classical")
    return [
        Fault(where, f"'{name}' needs {need}, and {lacks[need]}.", "Use another model.", "unmet need")
        for where, name in named
        if name in known
        for need in registry.get("classical", name).needs
        if not has.get(need, True)
    ]


def _unreadable(config: Config, dataset: Tables, registry: Registry) -> list[Fault]:
    """Return a fault for each encoder of temporal features that reads none of them, by their roles."""
    roles = {plugin.type: plugin.role for plugin in registry.plugins("encoder") if plugin.role}
    faults = []
    for path, sides, features in _sections(config):
        start = pointer((*path, "features"))
        choice = features.get("temporal")
        if choice is None:
            continue
        names = [name for name in dataset.roles if name.split(".")[0] in sides]
        for field, own in choice.fields.items():
            read = roles.get(own.type or "") if own is not None else None
            held = [dataset.roles[name] for name in names if name.split(".", 1)[1] == field]
            if read and held and read not in held:
                what = f"'{own.type if own else None}' reads {read}, and '{field}' holds {held[0]}."
                faults.append(
                    Fault(f"{start}/temporal/fields/{field}/type", what, "Choose another encoder.", "wrong role")
                )
        read = roles.get(choice.type or "")
        if read and names and read not in {dataset.roles[name] for name in names}:
            what = f"'{choice.type}' reads {read}, and no temporal feature holds {read}."
            faults.append(Fault(f"{start}/temporal/type", what, "Choose another encoder.", "wrong role"))
    return faults


def data_notes(options: DataConfig, dataset: Tables) -> list[str]:
    """Return a note if no user has the feature that `data.history` names. Requests can pass it all the same."""
    name = options.history
    if name is None or f"temporal.{name}" in dataset.users.column_names:
        return []
    known = [one.removeprefix("temporal.") for one in dataset.features("user") if one.startswith("temporal.")]
    note = f"users have no temporal feature '{name}' (data.history), so only requests can have one."
    return [f"{note} {did_you_mean(name, known)}".rstrip()]


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


def idle_with_data(config: Config, dataset: Tables) -> list[Idle]:
    """Return the keys that have no effect with these data, set or not. They are notes, as other data may follow."""
    found = []
    if dataset.column("timestamp") is None:
        for key in ("half_life_days", "half_life_interactions"):
            found.append(idle_key(config, "data", key, what="no interaction has a timestamp"))
    if dataset.column("rating") is None:
        found.append(idle_key(config, "data", "min_rating", what="no interaction has a rating"))
    if config.split.protocol == "auto" and dataset.column("timestamp") is not None and not has_clock(dataset):
        for key in ("validation", "test"):
            what = "the timestamps only order each user's interactions, so the last of each user are held out"
            found.append(idle_key(config, "split", key, what=what))
    if config.model.type == TWO_TOWER:
        found += _idle_groups(config, dataset)
        if not label_interactions(dataset, config.data, checked=False).negative.any():
            what = "no interaction is an explicit negative (label 0, or a rating below 'data.min_rating')"
            found.append(idle_key(config, "explicit_negatives", what=what))
        if not config.split.validation or config.split.protocol == "none":
            for key in ("metric", "patience", "evaluate_every"):
                found.append(idle_key(config, "training", key, what="nothing is held out for validation"))
        found += _idle_dropouts(config, dataset)
    return [replace(one, is_fault=False) for one in found]


def _idle_groups(config: Config, dataset: Tables) -> Iterator[Idle]:
    """Yield the feature groups that the config chooses an encoder or a share for, and that no record has."""
    for start, sides, features in _sections(config):
        for group, choice in features.items():
            names = [name for side in sides for name in dataset.features(side) if name.startswith(f"{group}.")]
            if choice is not None and not names and group not in ("identity", HISTORY):
                yield Idle((*start, "features", group), "no record has a feature of this group")
    found = {name.split(".", 1)[0] for side in SIDES for name in dataset.features(side)} | {"identity", HISTORY}
    for group in config.dim_ratio or ():
        if group not in found:
            yield Idle(("dim_ratio", group), "no record has a feature of this group")


def _sections(config: Config) -> list[tuple[tuple[str, ...], tuple[Side, ...], dict[str, Feature | None]]]:
    """Return the path of each section with feature groups, the sides that it is for, and its groups."""
    return [
        ((), SIDES, config.features),
        (("user",), ("user",), config.user.features),
        (("item",), ("item",), config.item.features),
    ]


def _idle_dropouts(config: Config, dataset: Tables) -> Iterator[Idle]:
    """Yield the dropouts of features that the data or the config lack."""
    history = config.tower("user")[0].get(HISTORY) is not None
    has_id = config.tower("user")[0].get("identity", True) is not None
    others: dict[Side, bool] = {side: _has_features(config, dataset, side) for side in SIDES}
    for side in SIDES:
        if not others[side]:
            what = f"{side}s have no feature besides the id and the history"
            yield idle_key(config, side, "feature_dropout", what=what)
    if history and not has_id and not others["user"]:
        yield idle_key(config, "history_dropout", what="users have no feature besides the history")
    if not others["item"] and not (has_id and (others["user"] or history)):
        yield idle_key(config, "id_dropout", what="no feature could represent a user or an item instead of the id")


def _has_features(config: Config, dataset: Tables, side: Side) -> bool:
    """Return whether the config reads any feature of one side, besides the id and the history."""
    choices = config.tower(side)[0]
    return any(choices.get(name.split(".", 1)[0], True) is not None for name in dataset.features(side))


def unread_features(config: Config, registry: Registry, dataset: Tables) -> list[str]:
    """Return a sentence for each feature of the data that no encoder reads and that the config does not mention."""
    notes = []
    for side in SIDES:
        choices, _ = config.tower(side)
        for name in dataset.features(side):
            group, field = name.split(".", 1)
            role = dataset.roles.get(f"{side}.{field}", "") if group == "temporal" else ""
            if group not in choices and registry.encoder_for(group, role) is None:
                notes.append(unread_note(name, side))
    return notes


def unread_note(name: str, side: Side) -> str:
    """Return a sentence on a feature that no encoder reads, with the group that is probably meant."""
    group = name.split(".", 1)[0]
    near = suggestion(group, ALLOWED)
    return f"{side} feature '{name}' is not used: no encoder reads the group '{group}'. {near}".rstrip()
