"""The contract of providers, which stream the rows of a table from wherever they are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from pydantic import BaseModel

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.params import Params as Options
from anyrec.core.secrets import whole_address
from anyrec.core.types import ComponentParams
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place


@dataclass(frozen=True)
class Access:
    """What a provider may do, and what it reads relative to.

    Attributes:
        root: Folder that relative paths start from.
        allow_urls: Whether addresses of other machines may be opened (`data.allow_urls`).
        columns: Names of the columns that are used; a provider can leave out all others. None for all columns.
        faults: Gets faults of single rows, such as a row with too many cells. The caller raises them with all others.
        part: Which part of the data the table is of: users, items or interactions. Empty if it is not known.
    """

    root: Path = field(default_factory=Path)
    allow_urls: bool = False
    columns: frozenset[str] | None = None
    faults: Faults = field(default_factory=Faults)
    part: str = ""

    def address(self, place: str) -> str:
        """Return a path or address of the config as it was given, with a password that the config does not keep."""
        return whole_address(place)

    def check_remote(self, place: str) -> None:
        """Raise DataError if addresses of other machines may not be opened. place: What would be opened."""
        if not self.allow_urls:
            what = "this table is on another machine, and addresses of other machines are not opened."
            hint = "Set data.allow_urls to true (--set data.allow_urls=true) if you trust where the config comes from."
            raise DataError(Fault(place, what, hint, "not allowed"))


@dataclass
class Rows:
    """The rows of a table.

    Attributes:
        reader: The rows in record batches. It can be read once.
        name: Name of the table, for messages.
        version: What identifies this content: a snapshot, a tag, or size and time of the files. It is recorded with the
            run; the data hash is of the rows themselves.
        names: All columns of the table, those that are left out included; by default those of the reader.
        place: Where a row (from 0) is in its source; by default the number of the row.
        untyped: Whether all cells are texts because the format has no types.
        mixed: For columns that are texts because they held several types, the rows of a rarer type.
        notes: What was found out about the format, for the user. It can grow while the rows are read.

    Example:
        Rows(pa.table({"user": ["a"], "item": [1]}).to_reader(), "orders", version="snapshot 12")
    """

    reader: pa.RecordBatchReader
    name: str
    version: str
    names: list[str] | None = None
    place: Place | None = None
    untyped: bool = False
    mixed: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SourceFile:
    """One file of a provider that has files.

    Attributes:
        name: Its name, for messages and for its ending.
        open: Returns a new stream of its bytes; one that can seek if the provider can.
        version: What identifies its content: size and time, a tag, a snapshot.
        partition: Columns that the names of its folders give: {"year": "2024"} for year=2024/part.parquet.
    """

    name: str
    open: Callable[[], pa.NativeFile]
    version: str
    partition: dict[str, str] = field(default_factory=dict)


class Provider(ABC):
    """Base class of providers.

    Attributes:
        type: Name in the config.
        schemes: Schemes of the addresses that it reads, separated by spaces: "s3 gs".
        endings: Endings of the databases or paths that it reads, separated by spaces: ".sqlite .db".
        marks: Patterns of names within a folder, separated by spaces, that show that the folder is its table.
        remote: Whether it opens connections to other machines.
        Params: Its options.

    Args:
        params: The options.

    Example:
        class Numbers(Provider):
            type = "numbers"
            schemes = "numbers"

            def open(self, table, access):
                rows = pa.table({"user_id": [1, 2], "item_id": [2, 1]})
                return Rows(rows.to_reader(), "numbers", version="1")
    """

    type: ClassVar[str] = ""
    schemes: ClassVar[str] = ""
    endings: ClassVar[str] = ""
    marks: ClassVar[str] = ""
    remote: ClassVar[bool] = False

    class Params(Options):
        """No options."""

    def __init__(self, params: BaseModel | None = None):
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def is_remote(self, table: TableConfig) -> bool:
        """Return whether opening a table connects to other machines, which needs `data.allow_urls`; by default
        `remote`.
        """
        return self.remote

    def tables(self, table: TableConfig, access: Access) -> list[str]:
        """Return the names of all tables of a database, for `anyrec init`; by default none.

        Args:
            table: Its `path` or `database`.
            access: Folder of relative paths and permissions.

        Raises:
            DataError: If it cannot be opened.
        """
        return []

    @abstractmethod
    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open a table.

        Passwords and keys come from the environment or the provider's own files, or from `access.address(place)`. They
        are never part of a name, a version, a note or an error.

        Args:
            table: Where the rows are: `path` or `database` with `query` or `table`, and the `format` of files.
            access: Folder of relative paths and permissions.

        Returns:
            The rows; nothing needs to be read before the reader is.

        Raises:
            DataError: If the table cannot be found or opened.
            MissingDependency: If a package is missing.
        """
