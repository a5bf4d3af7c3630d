"""Embeddings as files: Parquet, NumPy arrays, or indexes of faiss, each with the ids in their own type. No pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.files import atomic_files
from anyrec.data.ids import Side


def check_format(name: str) -> None:
    """Check the name of a format. Raises ConfigError if it is unknown."""
    if name not in FORMATS:
        what = f"there is no format '{name:.60}'."
        raise ConfigError(Fault("--format", what, did_you_mean(name, FORMATS), "option"))


def write_embeddings(tables: Mapping[Side, pa.Table], folder: Path, form: str, model_id: str) -> list[str]:
    """Write the embeddings of users and items as one group of files.

    Args:
        tables: For each side, its ids and `embedding`.
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
        for side, table in tables.items():
            FORMATS[form](side, table.replace_schema_metadata({"model": model_id}), new)
        return sorted(path.name for path in new.iterdir())


def vectors_of(table: pa.Table) -> np.ndarray:
    """Return the column `embedding` as an array (rows, dim) float32."""
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), column.type.list_size)


def _parquet(side: Side, table: pa.Table, folder: Path) -> None:
    """Write `users.parquet`: user_id and embedding."""
    pq.write_table(table, folder / f"{side}s.parquet")


def _numpy(side: Side, table: pa.Table, folder: Path) -> None:
    """Write `users.npy` (rows, dim) float32, and `user_ids.parquet`, whose rows are those of the array."""
    np.save(folder / f"{side}s.npy", vectors_of(table), allow_pickle=False)
    pq.write_table(table.drop_columns(["embedding"]), folder / f"{side}_ids.parquet")


def _faiss(side: Side, table: pa.Table, folder: Path) -> None:
    """Write `users.faiss`, an exact index of dot products, and `user_ids.parquet`, whose rows are what it returns."""
    import faiss

    vectors = vectors_of(table)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / f"{side}s.faiss"))
    pq.write_table(table.drop_columns(["embedding"]), folder / f"{side}_ids.parquet")


FORMATS: dict[str, Callable[[Side, pa.Table, Path], None]] = {"parquet": _parquet, "numpy": _numpy, "faiss": _faiss}
"""The function that writes one side in each format."""
