"""Embeddings as files: Parquet, NumPy arrays, or indexes of faiss, each with the ids in their own type. No pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.files import atomic_files
from anyrec.data.ids import Side

ROWS = 1 << 17
"""Minimum number of rows in a row group of a Parquet file, except the last."""


def check_format(name: str) -> None:
    """Check the name of a format. Raises ConfigError if it is unknown."""
    if name not in FORMATS:
        what = f"there is no format '{name:.60}'."
        raise ConfigError(Fault("--format", what, did_you_mean(name, FORMATS), "option"))


def write_embeddings(
    tables: Mapping[Side, tuple[int, Iterable[pa.Table]]], folder: Path, form: str, model_id: str
) -> list[str]:
    """Write the embeddings of users and items as one group of files, table by table.

    Args:
        tables: For each side, the number of records, and tables of their ids and `embedding`: at least one.
        folder: The folder; other files in it stay.
        form: "parquet", "numpy" or "faiss".
        model_id: Id of the model, which the metadata of the Parquet files name as `model`.

    Returns:
        The names of the files.

    Raises:
        ConfigError: If the format is unknown.
    """
    check_format(form)
    with atomic_files(folder, "embeddings") as new:
        for side, (count, parts) in tables.items():
            named = (table.replace_schema_metadata({"model": model_id}) for table in parts)
            FORMATS[form](side, count, named, new)
        return sorted(path.name for path in new.iterdir())


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Concatenate tables to tables of at least ROWS rows, except the last, which can be smaller or empty."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS:
            yield pa.concat_tables(waiting)
            waiting = [table.slice(0, 0)]
    if waiting:
        yield pa.concat_tables(waiting)


def vectors_of(table: pa.Table) -> np.ndarray:
    """Return the column `embedding` as an array (rows, dim) float32."""
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), column.type.list_size)


def _parquet(side: Side, count: int, tables: Iterable[pa.Table], folder: Path) -> None:
    """Write `users.parquet`: user_id and embedding."""
    with ExitStack() as opened:
        append: Callable[[pa.Table], None] | None = None
        for table in row_groups(tables):
            if append is None:
                writer = pq.ParquetWriter(folder / f"{side}s.parquet", table.schema)
                append = opened.enter_context(writer).write_table
            append(table)


def _numpy(side: Side, count: int, tables: Iterable[pa.Table], folder: Path) -> None:
    """Write `users.npy` (rows, dim) float32, and `user_ids.parquet`, whose rows are those of the array."""
    ids: list[pa.Table] = []
    array, row = None, 0
    for table in tables:
        vectors = vectors_of(table)
        if array is None:
            shape = (count, vectors.shape[1])
            array = np.lib.format.open_memmap(folder / f"{side}s.npy", "w+", np.dtype(np.float32), shape)
        array[row : row + len(vectors)] = vectors
        row += len(vectors)
        ids.append(table.drop_columns(["embedding"]))
    pq.write_table(pa.concat_tables(ids), folder / f"{side}_ids.parquet")


def _faiss(side: Side, count: int, tables: Iterable[pa.Table], folder: Path) -> None:
    """Write `users.faiss`, an exact index of dot products, and `user_ids.parquet`, whose rows are what it returns."""
    import faiss

    ids: list[pa.Table] = []
    indexes: list[faiss.Index] = []
    for table in tables:
        vectors = vectors_of(table)
        indexes = indexes or [faiss.IndexFlatIP(vectors.shape[1])]
        indexes[0].add(vectors)
        ids.append(table.drop_columns(["embedding"]))
    faiss.write_index(indexes[0], str(folder / f"{side}s.faiss"))
    pq.write_table(pa.concat_tables(ids), folder / f"{side}_ids.parquet")


Writer: TypeAlias = Callable[[Side, int, Iterable[pa.Table], Path], None]
FORMATS: dict[str, Writer] = {"parquet": _parquet, "numpy": _numpy, "faiss": _faiss}
"""The function that writes the records of one side in each format: the side, their number, their tables, the folder."""
