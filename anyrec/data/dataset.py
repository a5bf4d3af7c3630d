"""A dataset: tables that were read from a file, a folder or data frames, and validated."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.notebook import html_table
from anyrec.data.formats.frames import DataFrame
from anyrec.data.read import read_frames, read_path
from anyrec.data.tables import Tables


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
    def read(cls, path: str | Path, options: DataConfig | None = None) -> Dataset:
        """Read a dataset.

        Args:
            path: A JSON or YAML file, or a folder of JSON Lines, CSV or Parquet files, or of MovieLens.
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
    def _of(cls, tables: Tables) -> Dataset:
        return cls(
            tables.users, tables.items, tables.interactions, tables.root, tables.roles, tables.notes, tables.origins
        )


def _counted(table: pa.Table, name: str) -> str:
    return f"{len(table):,} {name}" + ("" if len(table) == 1 else "s")
