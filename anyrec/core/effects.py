"""Keys of a config that have no effect in the combination that it chooses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from anyrec.core.config import TWO_TOWER, Component, Config, Feature
from anyrec.core.config.components import components, feature_sections
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.param_keys import ONLY_WITH, PARTS
from anyrec.core.registry import Registry
from anyrec.core.strict_json import pointer
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show

OF_TOWERS = (
    "dim",
    "encoder_dim",
    "dim_ratio",
    "features",
    "id_dropout",
    "history_dropout",
    "fusion",
    "user",
    "item",
    "interaction",
    "heads",
    "loss",
    "negatives",
    "negative_ratio",
    "explicit_negatives",
)
"""Keys that describe a two_tower, which a classical model does not read."""
SHARES = ("global_time", "random", "cold_users", "cold_items")
"""Protocols of a split that read `validation` and `test`."""


@dataclass(frozen=True)
class Idle:
    """A key without effect.

    Attributes:
        path: The key and the sections that it is in.
        what: Why it has none, and the replacement.
        hint: What to do.
        default: The value that the key has if it is not set.
        is_fault: Whether a config that sets it is refused; otherwise the user gets a note.
    """

    path: tuple[str, ...]
    what: str
    hint: str = "Leave it out."
    default: Json = None
    is_fault: bool = True

    @property
    def fault(self) -> Fault:
        """The key as a fault of the config."""
        return Fault(pointer(self.path), f"this has no effect: {self.what}.", self.hint, "no effect")

    @property
    def note(self) -> str:
        """The key as a sentence for the user."""
        return f"'{'.'.join(self.path)}' has no effect: {self.what}."


def idle_keys(config: Config, registry: Registry) -> list[Idle]:
    """Return the keys that have no effect whatever the data are, set or not.

    Args:
        config: The config; complete, or one with `defaults: fixed`.
        registry: The components.
    """
    found = [*idle_cluster(config), *_split(config), *_options_of_components(config, registry)]
    if config.data.drop_leaks is False:
        found.append(idle_key(config, "data", "leak_share", what="'drop_leaks' is false"))
    if config.training.optimizer.sparse != "auto":
        what = f"'sparse' is {show(config.training.optimizer.sparse)}, not \"auto\""
        found.append(idle_key(config, "training", "optimizer", "sparse_rows", what=what))
    if config.evaluation.baselines == []:
        found.append(idle_key(config, "evaluation", "tune_baselines", what="there are no baselines"))
    rank = config.pipeline.rank if config.pipeline else None
    if rank is not None and not config.training.refit and config.split.validation and config.split.protocol != "none":
        what = (
            "the ranker learns from the validation part, which the model is not trained on ('training.refit' is false)"
        )
        found.append(idle_key(config, "pipeline", "rank", "training", "holdout_fraction", what=what))
    if config.model.type != TWO_TOWER:
        what = f"it describes a {TWO_TOWER}, and '{config.model.type}' reads its own options under 'model'"
        return [*found, *(replace(idle_key(config, key, what=what), is_fault=False) for key in OF_TOWERS)]
    return [*found, *_negatives(config, registry), *_towers(config, registry)]


def idle_cluster(config: Config) -> list[Idle]:
    """Return the keys of `cluster` that its type does not read."""
    keys = ("address", "workers", "cpus", "gpus", "max_restarts") if config.cluster.type == "none" else ()
    hint = "Leave it out, or set cluster.type to ray."
    return [idle_key(config, "cluster", key, what="'cluster.type' is \"none\"", hint=hint) for key in keys]


def idle_key(config: Config, *path: str, what: str, hint: str = "Leave it out.") -> Idle:
    """Return a key of one of the config's sections as one without effect.

    Args:
        config: The config.
        path: The sections and the key.
        what: Why it has no effect.
        hint: What to do.
    """
    section: object = config
    for part in path[:-1]:
        section = getattr(section, part)
    default = type(section).model_fields[path[-1]].get_default(call_default_factory=True)  # type: ignore[attr-defined]
    plain = default.model_dump(mode="json") if hasattr(default, "model_dump") else default
    return Idle(path, what, hint, plain)


def chosen_by_user(idle: Iterable[Idle], config: Config, asked: Config | None = None) -> list[Idle]:
    """Return those keys without effect that the user chose.

    Args:
        idle: The keys.
        config: The complete config.
        asked: The config as the user wrote it. With `defaults: fitted`, each key that it sets counts. A config with
            `defaults: fixed` may be the complete config of a model: only values that are not the default count.
    """
    strict = asked is not None and asked.defaults == "fitted"
    written = (asked if asked is not None and strict else config).model_dump(mode="json", exclude_unset=True)
    absent = object()
    found = []
    for one in idle:
        value = _value(written, one.path, absent)
        if value is not absent and (strict or value != one.default) and value not in ({}, None):
            found.append(one)
    return found


def is_set(document: JsonObject, path: tuple[str, ...]) -> bool:
    """Return whether a config document has a key."""
    absent = object()
    return _value(document, path, absent) is not absent


def without(document: JsonObject, idle: Iterable[Idle]) -> JsonObject:
    """Return a config document without some keys."""
    for one in idle:
        document = _dropped(document, one.path)
    return document


def _split(config: Config) -> Iterator[Idle]:
    """Keys of the split that its protocol does not read."""
    split = config.split
    if split.file is not None:
        for key in ("protocol", "validation", "test", "last_n"):
            yield idle_key(config, "split", key, what="the split is read from 'split.file'")
        return
    if split.protocol != "leave_last_n":
        hint = "Leave it out, or set split.protocol to leave_last_n."
        yield idle_key(config, "split", "last_n", what=f"the protocol '{split.protocol}' does not read it", hint=hint)
    if split.protocol not in (*SHARES, "auto"):
        for key in ("validation", "test"):
            yield idle_key(config, "split", key, what=f"the protocol '{split.protocol}' decides how much is held out")


def _negatives(config: Config, registry: Registry) -> Iterator[Idle]:
    """Keys of negatives that the loss or the sampler does not read."""
    loss, name = config.loss.type, config.negatives.type
    if _compares_with_all(registry, loss, config.loss.options()):
        what = f"the loss '{loss}' compares with all items instead of sampled negatives"
        hint = "Leave it out, or choose a loss of sampled negatives, for example softmax."
        yield idle_key(config, "negative_ratio", what=what, hint=hint)
        yield Idle(("negatives", "type"), what, hint, type(config.negatives)().type)
        for option in config.negatives.options():
            yield Idle(("negatives", option), what, hint)
    elif name in registry.names("sampler"):
        sampler = registry.get("sampler", name)
        if not sampler.reads_ratio:
            options = " and ".join(
                f"'negatives.{option}'" for option in sampler.Params.model_fields if option != "alpha"
            )
            what = f"the number of negatives of '{name}' is set by {options}" if options else f"'{name}' draws none"
            hint = "Leave it out, or choose a sampler with a ratio, for example uniform."
            yield idle_key(config, "negative_ratio", what=what, hint=hint)
        if sampler.labelled:
            yield Idle(("negatives", "exclude"), f"'{name}' draws no negatives", default="interacted")


def _compares_with_all(registry: Registry, loss: str, options: JsonObject) -> bool:
    """Return whether a loss, or one of its parts, compares with all items."""
    if loss not in registry.names("loss"):
        return False
    cls = registry.get("loss", loss)
    if cls.all_items:
        return True
    try:
        params = registry.params("loss", loss, options)
    except ConfigError:
        return False
    parts = [name for name, one in cls.Params.model_fields.items() if PARTS in (one.json_schema_extra or {})]
    return any(_compares_with_all(registry, one.type, one.options()) for name in parts for one in getattr(params, name))


def _towers(config: Config, registry: Registry) -> Iterator[Idle]:
    """Keys of the towers that the features or the interaction make useless."""
    sides = [config.tower("user")[0], config.tower("item")[0]]
    history = sides[0].get("history") is not None
    if not history:
        yield idle_key(
            config, "history_dropout", what="the users' histories are not among the features ('features.history')"
        )
    if all("identity" in features and features["identity"] is None for features in sides):
        yield idle_key(config, "id_dropout", what="ids are switched off ('features.identity')")
    for start, features in feature_sections(config):
        for group, choice in features.items():
            for field in choice.fields if choice else ():
                for key, default in (("fields", {}), ("pool_group", False)):
                    yield Idle((*start, group, "fields", field, key), "it is a key of the whole group", default=default)
    reads = config.interaction.type
    if reads in registry.names("interaction") and registry.get("interaction", reads).reads == "tokens":
        what = f"the interaction '{reads}' reads the vectors of the features, before any fusion"
        for path in [("user", "fusion")] if history else [("fusion",), ("user", "fusion"), ("item", "fusion")]:
            yield Idle(path, what, is_fault=False)
    elif all(side.fusion is not None and side.fusion.named() for side in (config.user, config.item)):
        yield Idle(("fusion",), "both sides have their own ('user.fusion', 'item.fusion')")


def _options_of_components(config: Config, registry: Registry) -> Iterator[Idle]:
    """Options of components that another option of the same component makes useless."""
    for place in components(config):
        path = tuple(place.where.strip("/").split("/"))
        name = place.merged.type
        for option, what in _idle_options(registry, place.kind, name, place.merged.options()):
            if option in place.component.options():
                yield Idle((*path, option), what, default=_default(registry, place.kind, name, option))
    for start, features in feature_sections(config):
        for group, choice in features.items():
            if choice is not None:
                yield from _options_of_group(registry, (*start, group), group, choice)


def _options_of_group(registry: Registry, path: tuple[str, ...], group: str, choice: Feature) -> Iterator[Idle]:
    """The same for a group of features. An option of the group counts if any of its features reads it."""
    fields = {name: own for name, own in choice.fields.items() if own is not None}
    found = {name: _idle_in_feature(registry, group, own.within(choice)) for name, own in fields.items()}
    shared = _idle_in_feature(registry, group, choice)
    for option, (what, default) in shared.items():
        readers = [name for name, own in fields.items() if not own.type and option not in own.options()]
        if all(option in found[name] for name in readers):
            yield Idle((*path, option), what, default=default)
    for name, own in fields.items():
        for option, (what, default) in found[name].items():
            if option in own.options():
                yield Idle((*path, "fields", name, option), what, default=default)


def _idle_in_feature(registry: Registry, group: str, choice: Component) -> dict[str, tuple[str, Json]]:
    """Return the options of a feature that have no effect: why, and their default."""
    known = registry.names("encoder")
    fitting = [plugin.type for plugin in registry.plugins("encoder") if plugin.group == group]
    names = [choice.type] if choice.type else [registry.encoder_for(group) or "", *fitting]
    for name in names:
        if name in known and registry.has_options("encoder", name, choice.options()):
            idle = _idle_options(registry, "encoder", name, choice.options())
            return {option: (what, _default(registry, "encoder", name, option)) for option, what in idle}
    return {}


def _idle_options(registry: Registry, kind: str, name: str, options: JsonObject) -> Iterator[tuple[str, str]]:
    """Yield the options that are set and have no effect (`only_with`), and why."""
    if not options or name not in registry.names(kind):
        return
    try:
        params = registry.params(kind, name, options)
    except ConfigError:
        return
    for option, field in type(params).model_fields.items():
        extra = field.json_schema_extra
        needs = extra.get(ONLY_WITH) if isinstance(extra, dict) else None
        for other, values in (needs if isinstance(needs, dict) else {}).items():
            value = getattr(params, other)
            if option in params.model_fields_set and isinstance(values, list) and value not in values:
                wanted = " or ".join(show(one) for one in values)
                yield option, f"it needs '{other}' to be {wanted}, and it is {show(value)}"


def _default(registry: Registry, kind: str, name: str, option: str) -> Json:
    return registry.get(kind, name).Params.model_fields[option].get_default(call_default_factory=True)


def _value(document: Json, path: tuple[str, ...], absent: object) -> object:
    """Return the value at a path of a document; `absent` if there is none."""
    for part in path:
        if isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        elif isinstance(document, dict) and part in document:
            document = document[part]
        else:
            return absent
    return document


def _dropped(document: JsonObject, path: tuple[str, ...]) -> JsonObject:
    """Return a document without the key at a path of objects."""
    first, *rest = path
    inner = document.get(first)
    if rest and isinstance(inner, dict):
        return {**document, first: _dropped(inner, tuple(rest))}
    return document if rest else {key: value for key, value in document.items() if key != first}
