"""The provider of a table of the config, and its rows."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import ConfigError, DataError, Fault, did_you_mean
from anyrec.core.registry import Plugin, Registry
from anyrec.data.sources.contract import Access, Provider, Rows

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")
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
    name = provider_of(table, registry, where)
    options = table.provider.options() if table.provider is not None else {}
    provider: Provider = registry.get("provider", name, where)(registry.params("provider", name, options, where))
    if provider.remote and not access.allow_urls:
        what = "this table is on another machine, and addresses of other machines are not opened."
        hint = "Set data.allow_urls to true (--set data.allow_urls=true) if you trust where the config comes from."
        raise DataError(Fault(shown(table), what, hint, "not allowed"))
    return provider.open(table, access)


def provider_of(table: TableConfig, registry: Registry, where: str) -> str:
    """Return the type of a table's provider: the one that the config names, or that of its address or ending.

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
    if table.path is None:
        hint = "Set `provider` to its type; `anyrec plugins provider` lists all."
        what = f"no provider is known by the name of {shown(table)!r}."
        raise ConfigError(Fault(f"{where}/database", what, hint, "unknown plugin"))
    return DEFAULT


def shown(table: TableConfig) -> str:
    """Return the place of a table for messages: without user, password and query of an address."""
    return ", ".join(map(without_secrets, table.places)) or (table.provider.type if table.provider else "table")


def without_secrets(place: str) -> str:
    """Return a path or address without user, password, query and fragment."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _with(plugins: list[Plugin], key: str, value: str) -> str | None:
    """Return the type of the provider that declares a scheme or an ending."""
    return next((one.type for one in plugins if value in getattr(one, key).split()), None)


def _endings(place: str) -> list[str]:
    """Return the endings of a name, the longest first: .csv.gz, .gz."""
    parts = place.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].lower().split(".")
    return ["." + ".".join(parts[start:]) for start in range(1, len(parts))]
