"""What can be wrong in a config and be found without data: names and options of components, and keys that exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from anyrec.core.config import TWO_TOWER, Component, Config, Feature
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.registry import Registry
from anyrec.core.strict_json import pointer

Check = Callable[..., BaseModel | None]
PLACES = {"fusion": "fusion", "interaction": "interaction", "loss": "loss", "negatives": "sampler", "index": "index"}
"""Keys of a config that name one component, and its kind."""
DEFAULTS = {
    "fusion": ("simple", "residual"),
    "loss": ("softmax", "full_softmax"),
    "negatives": ("in_batch", "shared"),
    "interaction": ("dot",),
    "index": ("exact",),
}
"""Components that a key may come to mean if `type` is not set: the fixed default, and those fitted to the data."""
TAKEN = {"score", "user_id", "item_id", "rank", "label"}
"""Columns that stand beside the predictions of heads."""


def config_faults(config: Config, registry: Registry, encoders_may_follow: bool = False) -> list[Fault]:
    """Every fault of `config` that shows without data.

    encoders_may_follow: accept the name of an encoder that the registry lacks, because one may be added before `fit`.
    """
    faults: list[Fault] = []

    def check(kind: str, name: str, options: dict[str, Any], where: str) -> BaseModel | None:
        try:
            params = registry.params(kind, name, options, where)
            for option, field in type(params).model_fields.items():
                inner = field.json_schema_extra
                if isinstance(inner, dict) and "kind" in inner:  # an option that is itself a component
                    part: Component = getattr(params, option)
                    check(str(inner["kind"]), part.type, part.options(), f"{where}/{option}")
            return params
        except ConfigError as error:
            faults.extend(error.faults)
            return None

    _check_places(config, registry, check, faults)
    for side in ("user", "item"):
        own = getattr(config, side).fusion
        if own is not None:
            fusion = config.tower(side)[1]
            if own.named():
                check("fusion", fusion.type, fusion.options(), f"/{side}/fusion")
            else:
                shared = fusion if config.defaults == "fixed" or config.fusion.named() else None
                _check_untyped("fusion", own, shared, registry, faults, f"/{side}/fusion")
    for name, head in config.heads.items():
        check("head", head.type, head.options(), "/heads" + pointer([name]))
        faults += _head_name(name)
    if config.pipeline is not None:
        for number, source in enumerate(config.pipeline.retrieve.sources):
            check("source", source.type, source.options(), f"/pipeline/retrieve/sources/{number}")
        for number, rule in enumerate(config.pipeline.rerank.rules):
            check("rule", rule.type, rule.options(), f"/pipeline/rerank/rules/{number}")
        if config.pipeline.rank is not None:
            check("interaction", config.pipeline.rank.type, config.pipeline.rank.options(), "/pipeline/rank")
    faults += _check_model(config, registry, check)
    sparse = _check_features(config, registry, check, faults, encoders_may_follow)
    faults += _combinations(config, registry, sparse)
    return list(dict.fromkeys(faults))


def _check_places(config: Config, registry: Registry, check: Check, faults: list[Fault]) -> None:
    for place, kind in PLACES.items():
        component: Component = getattr(config, place)
        if component.named():
            check(kind, component.type, component.options(), f"/{place}")
        elif component.options():
            fixed = component if config.defaults == "fixed" else None
            _check_untyped(place, component, fixed, registry, faults, f"/{place}")


def _check_untyped(
    place: str, component: Component, meant: Component | None, registry: Registry, faults: list[Fault], where: str
) -> None:
    """Options without a `type`: `meant` must take them or, without it, one of the components that the key may come to mean."""
    own, tried = component.options(), DEFAULTS[place]
    if meant is not None:
        own, tried = {**meant.options(), **own}, (meant.type,)
    first: list[Fault] = []
    for name in tried:
        try:
            registry.params(PLACES[place], name, own, where)
            return
        except ConfigError as error:
            first = first or error.faults
    others = [
        name
        for name in registry.names(PLACES[place])
        if name not in tried and set(component.options()) <= set(registry.get(PLACES[place], name).Params.model_fields)
    ]
    hint = f" Without {where}/type it is {' or '.join(repr(name) for name in tried)}."
    if others:
        hint += f" Set the type: {', '.join(repr(name) for name in others)} {'has' if len(others) == 1 else 'have'} it."
    faults += [Fault(fault.where, fault.what, (fault.hint + hint).strip(), fault.kind) for fault in first]


def _check_model(config: Config, registry: Registry, check: Check) -> list[Fault]:
    faults = []
    if config.model.type == TWO_TOWER:
        if config.model.options():
            faults.append(
                Fault("/model", "two_tower takes no options here.", "Its options are keys of the config itself.")
            )
    elif config.model.type not in registry.names("classical"):
        hint = did_you_mean(config.model.type, [TWO_TOWER, *registry.names("classical")])
        what = f"there is no model '{config.model.type}'."
        faults += [Fault("/model/type", what, hint, "unknown plugin"), *registry.broken]
    else:
        check("classical", config.model.type, config.model.options(), "/model")
    if config.evaluation.baselines != "auto":
        for place, name in enumerate(config.evaluation.baselines):
            if name not in registry.names("classical"):
                hint = did_you_mean(name, registry.names("classical"))
                what = f"there is no classical model '{name}'."
                faults += [Fault(f"/evaluation/baselines/{place}", what, hint, "unknown plugin"), *registry.broken]
    return faults


def _check_features(
    config: Config, registry: Registry, check: Check, faults: list[Fault], encoders_may_follow: bool
) -> list[str]:
    """The pointers of those features that ask for sparse gradients."""
    sparse = []
    for where, group, choice in _features(config):
        options = choice.options()
        if choice.type is None:
            fitting = [plugin.type for plugin in registry.plugins("encoder") if plugin.group == group]
            if not fitting or not options:
                continue
            name = next((name for name in fitting if _takes(registry, name, options)), None)
            name = name or registry.encoder_for(group) or fitting[0]
        else:
            name = choice.type
            reads = {plugin.type: plugin.group for plugin in registry.plugins("encoder")}
            if name not in reads and encoders_may_follow:
                continue
            if name in reads and reads[name] != group and group in reads.values():
                fitting = sorted(other for other, read in reads.items() if read == group)
                what = f"the encoder '{name}' reads the group '{reads[name]}', not '{group}'."
                faults.append(Fault(f"{where}/type", what, f"Use one of {', '.join(fitting)}.", "wrong group"))
                continue
        params = check("encoder", name, options, where)
        if params is not None and registry.get("encoder", name).wants_sparse_gradients(params):
            sparse.append(f"{where}/sparse")
    return sparse


def _features(config: Config) -> Iterator[tuple[str, str, Feature]]:
    """Pointer, group and choice of every group and of every single feature that has a choice of its own."""
    for start, features in (
        ("/features", config.features),
        ("/user/features", config.user.features),
        ("/item/features", config.item.features),
    ):
        for group, choice in features.items():
            if choice is None:
                continue
            yield start + pointer([group]), group, choice
            for field, own in choice.fields.items():
                if own is not None:
                    whole = own.options() if own.type else {**choice.options(), **own.options()}
                    merged = Feature.model_validate({"type": own.type or choice.type, **whole})
                    yield start + pointer([group, "fields", field]), group, merged


def _takes(registry: Registry, name: str, options: dict[str, Any]) -> bool:
    try:
        registry.params("encoder", name, options)
    except ConfigError:
        return False
    return True


def _head_name(name: str) -> list[Fault]:
    from torch import nn

    where = "/heads" + pointer([name])
    if name in TAKEN or name in dir(nn.ModuleDict()):
        return [
            Fault(where, f"'{name}' cannot be the name of a head: it is taken.", "Choose another name.", "taken name")
        ]
    if not name.isidentifier() or len(name) > 100:
        hint = "Use letters, digits and underscores, and begin with a letter."
        return [Fault(where, "this cannot be the name of a head.", hint, "bad name")]
    return []


def _combinations(config: Config, registry: Registry, sparse: list[str]) -> list[Fault]:
    """Keys that exclude each other."""
    faults = []
    optimizer, training = config.training.optimizer, config.training
    for where in sparse:
        for key in ("weight_decay", "max_norm"):
            if getattr(optimizer, key):
                hint = f"Leave it out, or training.optimizer.{key}."
                faults.append(Fault(where, f"sparse gradients cannot go with {key}.", hint, "combination"))
    set_here = config.defaults == "fixed" or "metric" in training.model_fields_set
    if set_here and "@" in training.metric and int(training.metric.split("@")[1]) not in config.evaluation.k:
        what = f"'{training.metric}' is not measured: evaluation.k is {config.evaluation.k}."
        faults.append(Fault("/training/metric", what, "Use one of those k, or add this one there.", "combination"))
    if config.negatives.named() and config.negatives.type in registry.names("sampler"):
        losses = registry.get("sampler", config.negatives.type).losses
        if losses is not None and config.loss.type not in losses:
            what = f"'{config.loss.type}' compares a positive with negatives, and negatives.type={config.negatives.type} draws none."
            hint = f"Use {' or '.join(repr(name) for name in losses)}, or another sampler (negatives.type=uniform)."
            faults.append(Fault("/loss/type", what, hint, "combination"))
    return faults
