"""Delta tables."""

from __future__ import annotations

import os
import re

import pyarrow as pa
from pydantic import Field

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault, MissingDependency
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.open_table import shown
from anyrec.data.sources.queries import BATCH
from anyrec.data.sources.stored_files import store_errors

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Delta(Provider):
    """Delta tables: a folder with _delta_log, or {"provider": {"type": "delta"}} with s3://bucket/table."""

    type = "delta"
    marks = "_delta_log"

    class Params(Provider.Params):
        """Which state of the table is read."""

        version: int | None = Field(default=None, ge=0, lt=2**63, description="Version; by default the latest.")

    params: Params

    def is_remote(self, table: TableConfig) -> bool:
        """Return whether the table has an address."""
        return parse_address(table.places[0]).scheme not in ("", "file")

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open a version of a table. Rows of one file stay in order; the files are in the order of the table's log."""
        try:
            import deltalake
        except ImportError:
            raise MissingDependency("deltalake", "delta", "Reading Delta tables") from None
        name, place = shown(table), table.places[0]
        if not self.is_remote(table):
            place = str(access.root / place.removeprefix("file://"))
        options = {"allow_http": "true"} if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http:") else {}
        with store_errors(name):
            try:
                found = deltalake.DeltaTable(place, self.params.version, storage_options=options)
                rows = found.to_pyarrow_dataset()
            except deltalake.exceptions.TableNotFoundError:
                hint = "Check the path, and the credentials of the store."
                raise DataError(Fault(name, "there is no Delta table here.", hint, "no table")) from None
            except (OSError, deltalake.exceptions.DeltaError) as error:
                text = " ".join(COLOURS.sub("", str(error)).replace("↳", "").split())
                if self.params.version is not None and "version" in text:
                    what = f"there is no version {self.params.version} of this table."
                    raise DataError(Fault(name, what, "Leave it out for the latest.", "no table")) from None
                raise OSError(text) from None
            names = list(rows.schema.names)
            wanted = [one for one in names if access.columns is None or one in access.columns]
            reader = rows.scanner(columns=wanted, batch_size=BATCH).to_reader()
        return Rows(_plain(reader), name, f"version {found.version()}", names=names)


def _plain(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Return the rows without the metadata of their schema, which is about the files."""
    schema = reader.schema.remove_metadata()
    return pa.RecordBatchReader.from_batches(schema, (batch.replace_schema_metadata() for batch in reader))
