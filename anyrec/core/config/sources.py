"""Config of the tables that the data is read from, and of what their columns mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from anyrec.core.config.keys import MAX_ROWS, Component, Section
from anyrec.core.secrets import keep_secrets

Whole = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Number = Annotated[StrictFloat, Field(ge=-1e300, le=1e300)]
Cell = StrictStr | StrictBool | Whole | Number | None
"""A value of a cell as JSON."""
Cells = Annotated[list[Cell], Field(max_length=100_000)]
Address = Annotated[str, AfterValidator(keep_secrets)]
"""A path or an address. The config keeps it without its password."""
Paths = Annotated[list[Address], Field(max_length=100_000)]
Aggregate = Literal["list", "first", "last", "count", "sum", "mean", "min", "max"]
"""How the rows of one key become one value."""
ROLES = ("user_id", "item_id", "timestamp", "rating", "weight", "label", "interaction_type")
"""Columns of the three tables that are no features."""


class ProviderChoice(Component):
    """A provider of tables, and its options."""


class FormatConfig(Section):
    """How the bytes of files are decoded. Each key that is not set is found from the file, with a note."""

    type: Literal["auto", "csv", "jsonl", "json", "parquet", "arrow", "excel", "adjacency"] = Field(
        default="auto",
        description="Format of the files; auto: by their endings and first bytes. csv: any separated text. jsonl: one "
        "JSON or Python object on each line. json: a list of objects. arrow: Arrow IPC and Feather. adjacency: lines "
        "of a user and the items of that user, separated by spaces.",
    )
    separator: str | None = Field(
        default=None, min_length=1, max_length=10, description="Text between two cells; by default found in the header."
    )
    quote: str | None = Field(default='"', min_length=1, max_length=1, description="Quote around cells; null for none.")
    escape: str | None = Field(
        default=None, min_length=1, max_length=1, description="Character before an escaped quote or separator."
    )
    encoding: str | None = Field(
        default=None, max_length=40, description="Encoding of texts, for example latin-1; by default UTF-8 or UTF-16."
    )
    header: list[str] | None = Field(
        default=None, max_length=100_000, description="Names of the columns of files that have no header."
    )
    skip: int = Field(default=0, ge=0, le=MAX_ROWS, description="Lines before the header that are left out.")
    decimal: Literal[".", ","] = Field(default=".", description="Decimal mark of the numbers in the texts.")
    nulls: list[str] = Field(
        default_factory=lambda: ["", "NULL", "null", "NA", "N/A", "NaN", "nan", "\\N"],
        max_length=100,
        description="Texts that stand for a missing value; ids are missing only if they are empty, NULL or \\N.",
    )
    sheet: str | None = Field(default=None, max_length=100, description="Sheet of a spreadsheet; by default the first.")


class ColumnConfig(Section):
    """What a column means, and how its values are changed. Changes are made in the order of the keys below."""

    to: str = Field(
        max_length=300,
        description="Role or feature: user_id, item_id, timestamp, rating, weight, label, interaction_type, "
        "context.NAME, or GROUP.NAME such as text.title. In a table of interactions, user.GROUP.NAME and "
        "item.GROUP.NAME are features of the user and the item.",
    )
    append: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="Columns whose texts are appended, for example the time of day.",
    )
    joiner: str = Field(default=" ", max_length=10, description="Text between the appended texts.")
    remove: str | None = Field(
        default=None, max_length=1000, description="Regular expression (RE2) whose matches are cut out."
    )
    extract: str | None = Field(
        default=None,
        max_length=1000,
        description="'year' for the last year in a text, or a regular expression (RE2) with one group.",
    )
    json_list: bool = Field(default=False, description='Cells are lists in JSON or Python: ["a", "b"].')
    split: str | None = Field(
        default=None, min_length=1, max_length=20, description="Separator of several values in one cell."
    )
    explode: bool = Field(default=False, description="Make a row for each value of a list.")
    values: dict[str, Cell] = Field(
        default_factory=dict, max_length=100_000, description="New values by old ones; null makes a value missing."
    )
    boolean: bool = Field(
        default=False, description="Read yes, y, true, t, on and 1 as 1, and no, n, false, f, off and 0 as 0."
    )
    decimal: Literal[".", ","] | None = Field(
        default=None,
        description="Decimal mark of numbers in texts. The other mark, spaces and apostrophes may group thousands, and "
        "a currency or percent sign may stand at either end.",
    )
    time: str | None = Field(
        default=None,
        max_length=100,
        description="Unit of numbers since 1970 (s, ms, us, ns), iso, or a format such as %d.%m.%Y %H:%M. By default "
        "ISO 8601 or, by their size, seconds, milliseconds or microseconds.",
    )
    zone: str | None = Field(
        default=None, max_length=100, description="Time zone of times without one, for example Europe/Berlin; UTC."
    )
    aggregate: Aggregate | None = Field(
        default=None, description="How the rows of one user or item become one value, in a table that repeats ids."
    )


Meanings = Annotated[list[str | ColumnConfig], Field(max_length=100)]
ColumnTarget = str | ColumnConfig | Meanings | None
"""Meaning of a column: one or several roles or features; None if it is not used."""


class TableConfig(Section):
    """Where the rows of one table come from."""

    path: Address | Paths | None = Field(
        default=None,
        description="File, glob pattern, folder, address or - for standard input; or several of them, whose rows "
        "follow one another. Relative paths start from `root`.",
    )
    database: Address | None = Field(
        default=None,
        max_length=10_000,
        description="Database file or address. A password in it is used, but not saved with the config.",
    )
    query: str | None = Field(default=None, max_length=100_000, description="Query of the database.")
    table: str | None = Field(default=None, max_length=1_000, description="Table of the database, instead of a query.")
    provider: ProviderChoice | None = Field(
        default=None, description="Provider of the rows, by `type`; by default the one of the address or ending."
    )
    format: FormatConfig = Field(default_factory=lambda: FormatConfig())
    only: dict[str, Cells] = Field(
        default_factory=dict, max_length=100, description="Rows that are read: values by column, as texts."
    )

    @model_validator(mode="after")
    def _one_place(self) -> TableConfig:
        if self.path in (None, "", []) and self.database is None and self.provider is None:
            raise ValueError("a table needs a `path`, a `database` or a `provider`")
        if self.query is not None and self.table is not None:
            raise ValueError("`query` and `table` exclude each other")
        return self

    @property
    def places(self) -> list[str]:
        """The paths and addresses; the database's if there is no path."""
        if isinstance(self.path, list):
            return self.path
        return [one for one in (self.path or self.database,) if one]


class SideTable(TableConfig):
    """A table whose columns are added to another table's rows by a key. Rows without a match are left out."""

    on: str | dict[str, str] = Field(
        description="Key column of both tables, or {column of the table: column of the side table} for one or more."
    )
    columns: dict[str, Literal["value"] | Aggregate] | None = Field(
        default=None,
        description="Columns that are added; by default all. value: each key occurs once. Otherwise how the rows of "
        "one key become one value: list, first, last, count, sum, mean, min, max.",
    )
    prefix: str = Field(default="", max_length=100, description="Put before the names of the added columns.")


class SourceTable(TableConfig):
    """A table of users, items or interactions."""

    join: list[SideTable] = Field(
        default_factory=list, max_length=100, description="Side tables whose columns are added first."
    )
    columns: dict[str, ColumnTarget] = Field(
        default_factory=dict,
        description="Role or feature of each column; a field of nested objects is outer.inner. Other columns are not "
        "used. By default columns have the names of the data format.",
    )
    constants: dict[str, Cell] = Field(
        default_factory=dict, max_length=100, description="Roles or features with one value in all rows."
    )
    missing: Literal["error", "ignore"] = Field(
        default="error", description="Columns that the table does not have: an error, or left out with a note."
    )
    repeats: Literal["error", "latest", "first"] = Field(
        default="error",
        description="Rows of a user or item that occurs again: an error, or the latest or first value that is not "
        "missing; differences are reported.",
    )


Tables = Annotated[list[SourceTable], Field(max_length=1000)]


class SourcesConfig(Section):
    """Tables that users, items and interactions are read from."""

    root: str | None = Field(
        default=None, description="Folder that relative paths start from; by default the folder of the config file."
    )
    users: Tables = Field(
        default_factory=list, description="Tables of users; by default the users of the interactions."
    )
    items: Tables = Field(
        default_factory=list, description="Tables of items; by default the items of the interactions."
    )
    interactions: Tables = Field(default_factory=list, min_length=1, description="Tables of interactions.")

    def tables(self) -> list[tuple[tuple[str | int, ...], TableConfig]]:
        """Return every table, side tables included, with its path in this section."""
        found: list[tuple[tuple[str | int, ...], TableConfig]] = []
        for part, tables in (("users", self.users), ("items", self.items), ("interactions", self.interactions)):
            for number, table in enumerate(tables):
                found.append(((part, number), table))
                found += [((part, number, "join", place), side) for place, side in enumerate(table.join)]
        return found
