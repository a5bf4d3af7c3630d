"""The components that a config names, except the encoders of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from anyrec.core.config.config import Config
from anyrec.core.config.keys import Component, Feature
from anyrec.core.strict_json import pointer

KIND_OF_KEY = {
    "fusion": "fusion",
    "interaction": "interaction",
    "loss": "loss",
    "negatives": "sampler",
    "index": "index",
}
"""Keys of a config that name one component and need no `type`, and the kind of component."""
DEFAULT_CHOICES = {
    "fusion": ("simple", "residual"),
    "loss": ("softmax", "full_softmax"),
    "negatives": ("in_batch", "shared"),
    "interaction": ("dot",),
    "index": ("exact",),
    "rank": ("mlp",),
}
"""What a key can stand for without `type`: the fixed default, then components that are chosen to fit the data."""


class Place(NamedTuple):
    """One component in a config.

    Attributes:
        where: JSON pointer into the config.
        key: The key of `DEFAULT_CHOICES` for a component that needs no `type`; else "".
        kind: Kind of component.
        component: The component as it was set.
        merged: The component that is used: a side's fusion without `type` is the shared one with the side's options.
    """

    where: str
    key: str
    kind: str
    component: Component
    merged: Component


def feature_sections(config: Config) -> Iterator[tuple[tuple[str, ...], Mapping[str, Feature | None]]]:
    """Yield the path and the choices by group of every section that says how features are encoded."""
    yield ("features",), config.features
    yield ("user", "features"), config.user.features
    yield ("item", "features"), config.item.features


def components(config: Config) -> Iterator[Place]:
    """Yield the components of a config, except `model` and the encoders of features."""
    keys = (config.fusion, config.interaction, config.loss, config.negatives, config.index)
    for (key, kind), component in zip(KIND_OF_KEY.items(), keys, strict=True):
        yield Place(f"/{key}", key, kind, component, component)
    if config.user.fusion is not None:
        yield Place("/user/fusion", "fusion", "fusion", config.user.fusion, config.tower("user")[1])
    if config.item.fusion is not None:
        yield Place("/item/fusion", "fusion", "fusion", config.item.fusion, config.tower("item")[1])
    for name, head in config.heads.items():
        yield Place("/heads" + pointer([name]), "", "head", head, head)
    for name, tracker in config.tracking.items():
        yield Place("/tracking" + pointer([name]), "", "tracker", tracker, tracker)
    if config.blend is not None and config.blend.models != "auto":
        for number, model in enumerate(config.blend.models):
            yield Place(f"/blend/models/{number}", "", "classical", model, model)
    for path, table in config.data.sources.tables() if config.data.sources is not None else ():
        if table.provider is not None:
            where = pointer(["data", "sources", *path, "provider"])
            yield Place(where, "", "provider", table.provider, table.provider)
    if config.pipeline is None:
        return
    for number, source in enumerate(config.pipeline.retrieve.sources):
        yield Place(f"/pipeline/retrieve/sources/{number}", "", "source", source, source)
    for number, rule in enumerate(config.pipeline.rerank.rules):
        yield Place(f"/pipeline/rerank/rules/{number}", "", "rule", rule, rule)
    if config.pipeline.rank is not None:
        yield Place("/pipeline/rank", "rank", "interaction", config.pipeline.rank, config.pipeline.rank)
