"""The hooks by which an installed package offers components (pluggy, entry-point group `anyrec`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

import pluggy

from anyrec.core.errors import Fault
from anyrec.core.types import ComponentClass

GROUP = "anyrec"
"""Name of the entry-point group, and of the pluggy project."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Decorator for a package's implementation of a hook.

Example:
    @hookimpl
    def anyrec_encoders():
        return [MyEncoder]
"""


class Hooks:
    """The hooks that a package can implement. Each returns a list of component classes of one kind."""

    @hookspec
    def anyrec_encoders(self) -> list[type]:
        """Return encoder classes."""
        ...

    @hookspec
    def anyrec_fusions(self) -> list[type]:
        """Return fusion classes."""
        ...

    @hookspec
    def anyrec_interactions(self) -> list[type]:
        """Return interaction classes."""
        ...

    @hookspec
    def anyrec_heads(self) -> list[type]:
        """Return head classes."""
        ...

    @hookspec
    def anyrec_losses(self) -> list[type]:
        """Return loss classes."""
        ...

    @hookspec
    def anyrec_samplers(self) -> list[type]:
        """Return sampler classes."""
        ...

    @hookspec
    def anyrec_classicals(self) -> list[type]:
        """Return classes of classical models."""
        ...

    @hookspec
    def anyrec_indexes(self) -> list[type]:
        """Return vector index classes."""
        ...

    @hookspec
    def anyrec_sources(self) -> list[type]:
        """Return classes of candidate sources."""
        ...

    @hookspec
    def anyrec_rules(self) -> list[type]:
        """Return rule classes."""
        ...

    @hookspec
    def anyrec_providers(self) -> list[type]:
        """Return classes of providers of tables."""
        ...

    @hookspec
    def anyrec_vector_databases(self) -> list[type]:
        """Return classes of vector databases."""
        ...

    @hookspec
    def anyrec_trackers(self) -> list[type]:
        """Return classes of trackers."""
        ...


HOOKS = {
    "encoder": "anyrec_encoders",
    "fusion": "anyrec_fusions",
    "interaction": "anyrec_interactions",
    "head": "anyrec_heads",
    "loss": "anyrec_losses",
    "sampler": "anyrec_samplers",
    "classical": "anyrec_classicals",
    "index": "anyrec_indexes",
    "source": "anyrec_sources",
    "rule": "anyrec_rules",
    "provider": "anyrec_providers",
    "vector_database": "anyrec_vector_databases",
    "tracker": "anyrec_trackers",
}
"""The hook of each kind of component."""


@dataclass
class InstalledPackage:
    """What one entry point offers.

    Attributes:
        name: Name of the distribution that declares it.
        components: Kind and class of each component.
        fault: Why the entry point cannot be used; None if it can.
    """

    name: str
    components: list[tuple[str, ComponentClass]] = field(default_factory=list)
    fault: Fault | None = None


def installed_packages() -> Iterator[InstalledPackage]:
    """Import the entry points of the group `anyrec` and call their hooks. If one fails, its fault is returned."""
    for point in entry_points(group=GROUP):
        package = InstalledPackage(point.dist.name if point.dist is not None else point.value)
        try:
            package.components = _components(point)
        except Exception as error:  # the code of a package can raise anything
            what = f"this plugin cannot be used: {type(error).__name__}: {error}."
            hint = f"Fix or uninstall it. The entry point is '{point.name} = {point.value}'."
            package.fault = Fault(f"package {package.name}", what, hint, "broken plugin")
        yield package


def _components(point: EntryPoint) -> list[tuple[str, ComponentClass]]:
    """Import one entry point and call its hooks.

    Raises for anything that is wrong: a function that is marked as a hook but is none, a class without a `type`.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(point.load(), name=point.name)
    manager.check_pending()
    components: list[tuple[str, ComponentClass]] = []
    for kind, hook in HOOKS.items():
        for found in getattr(manager.hook, hook)():
            components += [(kind, component) for component in found if component.type]
    return components
