"""A dataset: tables that were read from a file, a folder or data frames, and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from anyrec.core.config import Config, DataConfig
from anyrec.core.load_config import load_config
from anyrec.core.notebook import html_table
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.formats.frames import DataFrame
from anyrec.data.read import read_frames, read_path, read_sources
from anyrec.data.tables import Tables, with_computed


class Dataset(Tables):
    """Users, items and interactions, validated.

    See `anyrec.data.tables.Tables` for the columns and their types.

    Example:
        >>> dataset = Dataset.read("data.json")
        >>> dataset.features("item")
        ['categorical.genres', 'text.title']
    """

    def __repr__(self) -> str:
        return f"Dataset({_counted(self.users, 'user')}, {_counted(self.items, 'item')}, " + (
            f"{_counted(self.interactions, 'interaction')})"
        )

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the number of records of each part, and the names of its columns."""
        parts = {"users": self.users, "items": self.items, "interactions": self.interactions}
        rows = [
            (name, len(table), ", ".join(sorted(one for one in table.column_names if not one.endswith("_id"))))
            for name, table in parts.items()
        ]
        return html_table(repr(self), ["part", "records", "columns"], rows)

    @classmethod
    def read(cls, path: str | Path | Sequence[str | Path], options: DataConfig | None = None) -> Dataset:
        """Read a dataset, or several as one.

        Args:
            path: A JSON or YAML file; a folder of JSON Lines, CSV or Parquet files, or of MovieLens; or the folder of a
                server's log (docs/serving.md). Of several, later records replace earlier ones.
            options: The config's `data` section.

        Raises:
            DataError: With every fault found, by file and row.
        """
        return cls._of(read_path(path, options))

    @classmethod
    def from_tables(
        cls,
        users: DataFrame,
        items: DataFrame,
        interactions: DataFrame,
        options: DataConfig | None = None,
        root: str | Path | None = None,
    ) -> Dataset:
        """Make a dataset from pandas, polars or Arrow tables whose feature columns are named `group.name`.

        Args:
            users: Table with `user_id`.
            items: Table with `item_id`.
            interactions: Table with `user_id`, `item_id` and any of `interaction_type`, `timestamp`, `weight`,
                `rating`, `label` and `context.name`.
            options: The config's `data` section.
            root: Folder that relative image names start from; by default the working directory.

        Raises:
            DataError: With every fault found, by column and row.
        """
        return cls._of(read_frames(users, items, interactions, options or DataConfig(), Path(root or "")))

    @classmethod
    def from_sources(
        cls,
        config: Config | DataConfig | JsonObject | str | Path,
        registry: Registry | None = None,
        tables: Mapping[str, DataFrame] | None = None,
    ) -> Dataset:
        """Read the tables that a config names in `data.sources`, as docs/data-sources.md describes.

        Args:
            config: A config, its `data` section, a dict, or the path of a config file.
            registry: The components; by default those of installed packages and of ./plugins.
            tables: Pandas, polars or Arrow tables that take the place of tables of the config, by their `path`.

        Raises:
            ConfigError: If there are no sources, or they name columns that are not there.
            DataError: With every fault found, by table and row.
        """
        if not isinstance(config, DataConfig):
            config = (config if isinstance(config, Config) else load_config(config)[0]).data
        return cls._of(read_sources(config, registry, tables))

    @classmethod
    def _of(cls, tables: Tables) -> Dataset:
        parts = (tables.users, tables.items, tables.interactions)
        kept = (tables.roles, tables.notes, tables.origins, tables.versions, tables.scratch)
        return with_computed(cls(*parts, tables.root, *kept), tables.computed())


def _counted(table: pa.Table, name: str) -> str:
    return f"{len(table):,} {name}" + ("" if len(table) == 1 else "s")
