"""Checks of a config that need no data: names and options of components, and keys that exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from anyrec.core.check_sources import source_faults
from anyrec.core.config import TWO_TOWER, Component, Config, Feature
from anyrec.core.config.components import Place, components, feature_sections
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.infer_types import untyped_choices
from anyrec.core.param_keys import PARTS
from anyrec.core.registry import Registry
from anyrec.core.strict_json import pointer
from anyrec.core.types import JsonObject

RESERVED_COLUMNS = {"score", "user_id", "item_id", "rank", "label"}
"""Columns of results, which no head can be named like."""


def config_faults(config: Config, registry: Registry, encoders_may_follow: bool = False) -> list[Fault]:
    """Find all faults of a config that can be found without data.

    Args:
        config: The config.
        registry: The components.
        encoders_may_follow: Accept the name of an encoder that the registry does not have, because it may be added
            before `fit`.
    """
    checker = _Checker(config, registry)
    for place in components(config):
        checker.check_place(place)
    checker.check_heads()
    checker.check_model()
    sparse = checker.check_features(encoders_may_follow)
    checker.check_combinations(sparse)
    if config.data.sources is not None:
        checker.faults += source_faults(config.data.sources)
    return list(dict.fromkeys(checker.faults))


def blend_faults(config: Config, registry: Registry) -> list[Fault]:
    """Return what in a config excludes a blend, whether or not the config has one."""
    faults, hint = [], "Leave `blend` out."
    if config.model.type != TWO_TOWER:
        faults.append(Fault("/blend", "only a two_tower can be blended.", hint, "combination"))
    name = config.interaction.type
    if name in registry.names("interaction") and not registry.get("interaction", name).factorised:
        what = f"a blend needs scores that are dot products; those of '{name}' are not."
        faults.append(Fault("/blend", what, hint, "combination"))
    if config.pipeline is not None and config.pipeline.rank is not None:
        what = "a ranker reads the scores of the towers alone, so it cannot follow a blend."
        faults.append(Fault("/blend", what, "Leave out `blend` or `pipeline.rank`.", "combination"))
    return faults


class _Checker:
    """Collects the faults of one config."""

    def __init__(self, config: Config, registry: Registry):
        self.config, self.registry = config, registry
        self.faults: list[Fault] = []

    def check_component(self, kind: str, name: str, options: JsonObject, where: str) -> BaseModel | None:
        """Check a component and the components among its options.

        Returns:
            Its `Params`; None if there is a fault.
        """
        try:
            params = self.registry.params(kind, name, options, where)
        except ConfigError as error:
            self.faults += error.faults
            return None
        for option, field in type(params).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and "kind" in extra:  # an option that is itself a component
                part: Component = getattr(params, option)
                self.check_component(str(extra["kind"]), part.type, part.options(), f"{where}/{option}")
            if isinstance(extra, dict) and PARTS in extra:  # a list of components
                parts: list[Component] = getattr(params, option)
                for number, one in enumerate(parts):
                    self.check_component(str(extra[PARTS]), one.type, one.options(), f"{where}/{option}/{number}")
        return params

    def check_place(self, place: Place) -> None:
        """Check one component of the config."""
        if place.component.named():
            self.check_component(place.kind, place.component.type, place.component.options(), place.where)
        elif place.component.options():
            self._check_untyped(place)

    def check_heads(self) -> None:
        """Check the names of the heads."""
        for name in self.config.heads:
            self.faults += _head_name_faults(name)

    def check_model(self) -> None:
        """Check `model`, the models of the blend and the names of the baselines."""
        model, known = self.config.model, self.registry.names("classical")
        if model.type == TWO_TOWER:
            if model.options():
                what, hint = "two_tower takes no options here.", "Its options are keys of the config itself."
                self.faults.append(Fault("/model", what, hint))
        elif model.type in known:
            self.check_component("classical", model.type, model.options(), "/model")
        else:
            hint = did_you_mean(model.type, [TWO_TOWER, *known])
            self.faults.append(Fault("/model/type", f"there is no model '{model.type}'.", hint, "unknown plugin"))
            self.faults += self.registry.broken
        if self.config.blend is not None:
            self.faults += blend_faults(self.config, self.registry)
        baselines = self.config.evaluation.baselines
        for number, name in enumerate([] if baselines == "auto" else baselines):
            if name not in known:
                what, hint = f"there is no classical model '{name}'.", did_you_mean(name, known)
                self.faults.append(Fault(f"/evaluation/baselines/{number}", what, hint, "unknown plugin"))
                self.faults += self.registry.broken

    def check_features(self, encoders_may_follow: bool) -> list[str]:
        """Check the encoders.

        Returns:
            JSON pointers of the features that request sparse gradients.
        """
        sparse = []
        groups = {plugin.type: plugin.group for plugin in self.registry.plugins("encoder")}
        for where, group, choice in _features(self.config):
            fitting = [name for name, read in groups.items() if read == group]
            name = choice.type or self._encoder_with(choice.options(), group, fitting)
            if name is None or (choice.type and name not in groups and encoders_may_follow):
                continue
            if choice.type and name in groups and not (groups[name] == group or not fitting):
                what = f"the encoder '{name}' reads the group '{groups[name]}', not '{group}'."
                self.faults.append(
                    Fault(f"{where}/type", what, f"Use one of {', '.join(sorted(fitting))}.", "wrong group")
                )
                continue
            params = self.check_component("encoder", name, choice.options(), where)
            if params is not None and self.registry.get("encoder", name).wants_sparse_gradients(params):
                sparse.append(f"{where}/sparse")
        return sparse

    def check_combinations(self, sparse: list[str]) -> None:
        """Check keys that exclude each other. sparse: JSON pointers of the features that request sparse gradients."""
        config, training = self.config, self.config.training
        optimizer = training.optimizer
        for where in sparse:
            for key, value in (("weight_decay", optimizer.weight_decay), ("max_norm", optimizer.max_norm)):
                if value:
                    what, hint = (
                        f"sparse gradients cannot go with {key}.",
                        f"Leave it out, or training.optimizer.{key}.",
                    )
                    self.faults.append(Fault(where, what, hint, "combination"))
        set_here = config.defaults == "fixed" or "metric" in training.model_fields_set
        if set_here and "@" in training.metric and int(training.metric.split("@")[1]) not in config.evaluation.k:
            what = f"'{training.metric}' is not measured: evaluation.k is {config.evaluation.k}."
            hint = "Use one of those k, or add this one there."
            self.faults.append(Fault("/training/metric", what, hint, "combination"))
        negatives = config.negatives
        if negatives.named() and negatives.type in self.registry.names("sampler"):
            losses = self.registry.get("sampler", negatives.type).losses
            if losses is not None and config.loss.type not in losses:
                what = f"'{config.loss.type}' compares a positive with negatives, and '{negatives.type}' draws none."
                hint = f"Use {' or '.join(repr(name) for name in losses)}, or a sampler that draws negatives."
                self.faults.append(Fault("/loss/type", what, hint, "combination"))

    def _check_untyped(self, place: Place) -> None:
        """Check options without `type`: a component that the key can stand for must have them."""
        options, tried = untyped_choices(place, self.config)
        first: list[Fault] = []
        for name in tried:
            try:
                self.registry.params(place.kind, name, options, place.where)
                return
            except ConfigError as error:
                first = first or error.faults
        others = [
            name
            for name in self.registry.names(place.kind)
            if name not in tried and self.registry.has_options(place.kind, name, place.component.options())
        ]
        hint = f" Without {place.where}/type it is {' or '.join(repr(name) for name in tried)}."
        if others:
            listed = ", ".join(repr(name) for name in others)
            hint += f" Set the type: {listed} {'has' if len(others) == 1 else 'have'} it."
        self.faults += [Fault(fault.where, fault.what, (fault.hint + hint).strip(), fault.kind) for fault in first]

    def _encoder_with(self, options: JsonObject, group: str, fitting: list[str]) -> str | None:
        """The encoder to check options without `type` against: one that has them, else the group's default.

        None if there are no options to check, or no encoder reads the group.
        """
        if not fitting or not options:
            return None
        for name in fitting:
            try:
                self.registry.params("encoder", name, options)
                return name
            except ConfigError:
                continue
        return self.registry.encoder_for(group) or fitting[0]


def _features(config: Config) -> Iterator[tuple[str, str, Feature]]:
    """Yield JSON pointer, group and choice of every group, and of every single feature that has its own choice."""
    for start, features in feature_sections(config):
        for group, choice in features.items():
            if choice is None:
                continue
            yield pointer([*start, group]), group, choice
            for field, own in choice.fields.items():
                if own is not None:
                    yield pointer([*start, group, "fields", field]), group, own.within(choice)


def _head_name_faults(name: str) -> list[Fault]:
    """The faults of a head's name, which becomes a column of results and a key of a ModuleDict."""
    from torch import nn

    where = "/heads" + pointer([name])
    if name in RESERVED_COLUMNS or name in dir(nn.ModuleDict()):
        what, hint = f"'{name}' cannot be the name of a head: it is taken.", "Choose another name."
        return [Fault(where, what, hint, "taken name")]
    if not name.isidentifier() or len(name) > 100:
        hint = "Use letters, digits and underscores, and begin with a letter."
        return [Fault(where, "this cannot be the name of a head.", hint, "bad name")]
    return []
