"""The provider of a table of the config, and its rows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.registry import Plugin, Registry
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")
SHOWN = 60
"""Characters of a query in the name of its rows."""
DEFAULT = "files"
"""The provider of paths that are no addresses."""


def open_table(table: TableConfig, access: Access, registry: Registry, where: str = "/data/sources") -> Rows:
    """Open a table with its provider.

    Args:
        table: Where the rows come from.
        access: Folder of relative paths and permissions.
        registry: The components.
        where: JSON pointer to the table in the config, for messages.

    Raises:
        ConfigError: If no provider reads it.
        DataError: If it cannot be opened, or is on another machine and addresses are not allowed.
    """
    provider = opened_by(table, registry, where, access.root)
    if provider.is_remote(table):
        access.check_remote(shown(table))
    return provider.open(table, access)


def opened_by(table: TableConfig, registry: Registry, where: str = "/data/sources", root: Path = Path()) -> Provider:
    """Return the provider of a table with its options. The arguments are those of `provider_of`."""
    name = provider_of(table, registry, where, root)
    options = table.provider.options() if table.provider is not None else {}
    return registry.get("provider", name, where)(registry.params("provider", name, options, where))


def provider_of(table: TableConfig, registry: Registry, where: str, root: Path) -> str:
    """Return the type of a table's provider: that of the config, its address, its ending or the content of its folder.

    Args:
        table: The table.
        registry: The components.
        where: JSON pointer to the table, for messages.
        root: Folder of relative paths.

    Raises:
        ConfigError: If there is none.
    """
    if table.provider is not None:
        return table.provider.type
    plugins = registry.plugins("provider")
    place = table.places[0] if table.places else ""
    scheme = SCHEME.match(place)
    if scheme is not None:
        found = _with(plugins, "schemes", scheme[1].lower())
        if found is not None:
            return found
        if scheme[2]:
            known = sorted(one for plugin in plugins for one in plugin.schemes.split())
            what = f"no provider reads addresses of the scheme '{scheme[1]}'."
            raise ConfigError(Fault(f"{where}/path", what, did_you_mean(scheme[1], known), "unknown plugin"))
    for ending in _endings(place):
        found = _with(plugins, "endings", ending)
        if found is not None:
            return found
    folder = root / place
    if place and os.path.isdir(folder):
        for plugin in plugins:
            if any(next(folder.glob(mark), None) for mark in plugin.marks.split()):
                return plugin.type
    if table.path is None:
        hint = "Set `provider` to its type; `anyrec plugins provider` lists all."
        what = f"no provider is known by the name of {shown(table)!r}."
        raise ConfigError(Fault(f"{where}/database", what, hint, "unknown plugin"))
    return DEFAULT


def shown(table: TableConfig) -> str:
    """Return the place of a table for messages: without user, password and query of an address."""
    return ", ".join(map(without_secrets, table.places)) or (table.provider.type if table.provider else "table")


def title_of(table: TableConfig) -> str:
    """Return the place of a table with the name of the table or the beginning of the query, which names its rows."""
    text = table.table or " ".join((table.query or "").split())
    return shown(table) + (f": {text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'}" if text else "")


def without_secrets(place: str) -> str:
    """Return a path or address without user, password, query and fragment."""
    parts = parse_address(place)
    return f"{parts.scheme}://{parts.path}" if parts.scheme else place


def _with(plugins: list[Plugin], key: str, value: str) -> str | None:
    """Return the type of the provider that declares a scheme or an ending."""
    return next((one.type for one in plugins if value in getattr(one, key).split()), None)


def _endings(place: str) -> list[str]:
    """Return the endings of a name, the longest first: .csv.gz, .gz."""
    parts = place.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].lower().split(".")
    return ["." + ".".join(parts[start:]) for start in range(1, len(parts))]
