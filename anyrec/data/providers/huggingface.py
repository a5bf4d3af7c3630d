"""Datasets of the Hugging Face Hub, and those that `datasets` saved on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow.fs import FSSpecHandler, PyFileSystem
from pydantic import Field

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault, MissingDependency, did_you_mean
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.decode import decode
from anyrec.data.sources.open_table import shown
from anyrec.data.sources.queries import BATCH
from anyrec.data.sources.stored_files import store_errors, stored_files

if TYPE_CHECKING:
    import datasets

START = "hf://"
DEPTH = 2
"""Parts of the name of a dataset: owner and name."""


class HuggingFace(Provider):
    """Datasets: hf://datasets/OWNER/NAME, hf://datasets/OWNER/NAME/*.csv, or a folder of `save_to_disk`."""

    type = "huggingface"
    schemes = "hf"
    marks = "dataset_info.json dataset_dict.json"

    class Params(Provider.Params):
        """Which part of a dataset is read."""

        name: str | None = Field(default=None, max_length=300, description="Name of the dataset's configuration.")
        split: str | None = Field(default=None, max_length=300, description="Split; by default the only one.")

    params: Params

    def is_remote(self, table: TableConfig) -> bool:
        """Return whether the dataset is one of the Hub."""
        return parse_address(table.places[0]).scheme == "hf"

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open a split of a dataset, or files of its repository. The Hub's cache on this machine is used."""
        name, place = shown(table), table.places[0]
        parts = parse_address(place)
        if parts.scheme != "hf":
            return self._rows(_from_disk(access.root / place, name), name, "")
        inner = parts.path.removeprefix("datasets/").strip("/").split("/")
        if len(inner) > DEPTH:
            return self._files(table, access)
        repository, _, revision = "/".join(inner).partition("@")
        with store_errors(name):
            commit = _commit(repository, revision or None)
            found = _datasets().load_dataset(repository, self.params.name, revision=commit or revision or None)
        return self._rows(found, name, f"commit {commit}" if commit else "cached")

    def _files(self, table: TableConfig, access: Access) -> Rows:
        """Open files of a repository."""
        from huggingface_hub import HfFileSystem

        files = []
        for place in table.places:
            path = parse_address(place).path
            path = path if path.startswith("datasets/") else f"datasets/{path}"
            with store_errors(place):
                files += stored_files(PyFileSystem(FSSpecHandler(HfFileSystem())), path, START)
        return decode(files, table.format, access)

    def _rows(self, found: datasets.Dataset | datasets.DatasetDict, name: str, version: str) -> Rows:
        """Return the rows of a split. found: A dataset, or datasets by the names of their splits."""
        if isinstance(found, dict):
            splits = [str(name) for name in found]
            split = self.params.split or (splits[0] if len(splits) == 1 else "")
            if split not in splits:
                what = f"the dataset has no split '{split}'." if split else "the dataset has several splits."
                hint = f"Set the provider's option split. {did_you_mean(split, splits)}"
                raise DataError(Fault(name, what, hint, "split"))
            found = found[split]
        version = version or f"{found.info.version or ''} {len(found)} rows".strip()
        return Rows(_reader(found), name, version)


def _from_disk(folder: Path, name: str) -> datasets.Dataset | datasets.DatasetDict:
    with store_errors(name):
        return _datasets().load_from_disk(str(folder))


def _reader(found: datasets.Dataset) -> pa.RecordBatchReader:
    """Return the rows of a dataset, in the order that it was sorted or selected in."""
    schema = found.features.arrow_schema.remove_metadata()

    def batches() -> Iterator[pa.RecordBatch]:
        for table in found.with_format("arrow").iter(BATCH):
            yield from table.replace_schema_metadata().cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _commit(repository: str, revision: str | None) -> str:
    """Return the commit of a repository; empty without a connection, when the cache of this machine is read."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(repository, revision=revision).sha or ""
    except OfflineModeIsEnabled:
        return ""


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise MissingDependency("datasets", "huggingface", "Reading datasets of Hugging Face") from None
    return datasets
