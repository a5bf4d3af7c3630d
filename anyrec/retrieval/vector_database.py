"""The contract of vector databases, which store item vectors for other programs to search, and their addresses."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from anyrec.core.errors import ConfigError, Fault, InputError, did_you_mean
from anyrec.core.params import Params as Options
from anyrec.core.registry import Registry
from anyrec.core.strict_json import UnusableJson, json_or_text
from anyrec.core.types import ComponentParams, JsonObject
from anyrec.data.ids import Id

ADDRESS = re.compile(r"([A-Za-z][\w+.-]*):(?://([^/?]*))?([^?]*)(?:\?(.*))?", re.DOTALL)
"""Scheme, server, path and options of an address."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
"""Names of collections that every database accepts."""


class Target(NamedTuple):
    """Where vectors are stored.

    Attributes:
        server: User, host and port; empty for a local file.
        place: The path of a file or the name of a database; empty for none.
        collection: Name of the collection or table.
    """

    server: str
    place: str
    collection: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


class VectorDatabase(ABC):
    """Base class of vector databases. The methods are called in the order in which they are here.

    A method raises InputError if the database does not answer or refuses, with the server in its message.

    Attributes:
        type: Name of the component.
        schemes: Schemes of the addresses that name it, separated by spaces.
        Params: Options, which an address gives as `?name=value&name=value`.
        opened: Where `open` puts what `close` ends.

    Args:
        params: The options.
        target: Where the vectors are stored.

    Example:
        class Dictionary(VectorDatabase):
            type = "dictionary"
            schemes = "dictionary"
    """

    type: ClassVar[str] = ""
    schemes: ClassVar[str] = ""
    Params: ClassVar[ComponentParams] = Options

    def __init__(self, params: BaseModel, target: Target):
        self.params, self.target, self.opened = params, target, ExitStack()

    @abstractmethod
    def open(self, kind: pa.DataType, dim: int) -> None:
        """Connect, and create the collection if it does not exist. Scores are dot products.

        Args:
            kind: Type of the ids: int64 or string.
            dim: Dimension of the vectors.

        Raises:
            InputError: If the collection has vectors of another dimension or ids of another type.
        """

    @abstractmethod
    def upsert(self, ids: list[Id], vectors: np.ndarray, records: list[JsonObject]) -> None:
        """Store items; those with known ids are replaced as a whole.

        Args:
            ids: (items,) distinct.
            vectors: (items, dim) float32.
            records: (items,) `{group: {name: value}}`, without missing values, as JSON.
        """

    @abstractmethod
    def stored(self) -> Iterator[list[Id]]:
        """Yield the ids of all stored items, some at a time."""

    @abstractmethod
    def remove(self, ids: list[Id]) -> None:
        """Remove items that are stored."""

    def finish(self) -> None:  # noqa: B027  most databases have nothing to finish
        """Make what was stored visible to searches, and build what makes them fast."""

    @abstractmethod
    def search(self, query: np.ndarray, k: int) -> list[tuple[Id, float]]:
        """Return the ids and dot products of the k items nearest to a vector, best first."""

    def close(self) -> None:
        """Close the connection, if `open` got that far. What `finish` has not made visible may be lost."""
        self.opened.close()

    def mismatch(self, what: str) -> InputError:
        """Return the error for a collection that holds something else."""
        hint = "Name another collection, or delete this one."
        return InputError(Fault(self.target.collection, f"{what}.", hint, "foreign collection"))

    def unusable(
        self, error: object, hint: str = "Does the server run, and can it be reached from here?"
    ) -> InputError:
        """Return the error for a server that does not answer or refuses."""
        text = " ".join(str(error).split()).rstrip(".")
        return InputError(Fault(str(self.target), f"{self.type} cannot be used: {text:.300}.", hint, "no database"))


def database_at(address: str, registry: Registry, where: str = "--push") -> VectorDatabase:
    """Return the database that an address names: SCHEME://SERVER/COLLECTION or SCHEME:FILE/COLLECTION.

    Args:
        address: The address, with the options of the component as parameters.
        registry: The components.
        where: Name of the argument, for messages.

    Raises:
        ConfigError: If it is no address of a database, or has a password or an unknown option.
    """
    matched, plugins = ADDRESS.fullmatch(address), registry.plugins("vector_database")
    known = sorted(scheme for plugin in plugins for scheme in plugin.schemes.split())
    scheme = matched[1].lower() if matched else ""
    name = next((plugin.type for plugin in plugins if scheme in plugin.schemes.split()), None)
    if matched is None or name is None:
        what = f"no database has the scheme '{scheme}'." if scheme else "this is no address of a database."
        hint = f"{did_you_mean(scheme, known)} Write for example qdrant://localhost:6333/items.".strip()
        raise ConfigError(Fault(where, what, hint, "address"))
    server, path = matched[2] or "", matched[3]
    place, _, collection = path.rpartition("/")
    target = Target(server, place if not server else place.strip("/"), collection)
    faults = []
    if ":" in server.rpartition("@")[0]:
        hint = "Leave it out, and set the environment variable that docs/vector-databases.md names."
        faults.append(Fault(where, "an address on a command line must not have a password.", hint, "password"))
    if not NAME.fullmatch(collection):
        what = f"'{collection:.60}' is no name of a collection." if collection else "it names no collection."
        hint = (
            f"End it with a name of letters, digits and underscores: {scheme}:{'//host' if server else 'FILE'}/items."
        )
        faults.append(Fault(where, what, hint, "address"))
    if faults:
        raise ConfigError(faults)
    options = _options(matched[4] or "", where)
    return registry.get("vector_database", name)(registry.params("vector_database", name, options, where), target)


def from_environment(name: str) -> str | None:
    """Return a credential from an environment variable; None if it is not set or empty."""
    return os.environ.get(name) or None


def _options(text: str, where: str) -> JsonObject:
    """Return the parameters of an address: names and values, which are JSON or texts."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    try:
        return {name: json_or_text(value) for name, _, value in pairs}
    except UnusableJson as error:
        raise ConfigError(Fault(where, f"{error}", kind="option")) from None
