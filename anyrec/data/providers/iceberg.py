"""Iceberg tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault, MissingDependency
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.open_table import shown
from anyrec.data.sources.stored_files import store_errors

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

SETTINGS = "Catalogs are set up in ~/.pyiceberg.yaml or by PYICEBERG_CATALOG__NAME__URI."


class Iceberg(Provider):
    """Iceberg tables: iceberg://CATALOG with `table`, or a folder of a table on this machine."""

    type = "iceberg"
    schemes = "iceberg"
    marks = "metadata/*.metadata.json"

    class Params(Provider.Params):
        """Which state of the table is read."""

        snapshot: int | None = Field(default=None, ge=0, lt=2**63, description="Snapshot; by default the current.")

    params: Params

    def is_remote(self, table: TableConfig) -> bool:
        """Return whether the table is one of a catalogue, which is a service."""
        return bool(parse_address(table.places[0]).scheme)

    def tables(self, table: TableConfig, access: Access) -> list[str]:
        """Return the names of the tables of a catalogue."""
        with store_errors(shown(table)):
            found = _catalogue(table)
            return [".".join(name) for space in found.list_namespaces() for name in found.list_tables(space)]

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open a snapshot of a table. Rows of one file stay in order; the files are in the order of the manifests."""
        name = shown(table)
        with store_errors(name):
            found = _from_catalog(table) if parse_address(table.places[0]).scheme else _from_folder(table, access)
            snapshot = found.current_snapshot()
            if self.params.snapshot is not None:
                snapshot = found.snapshot_by_id(self.params.snapshot)
                if snapshot is None:
                    what, hint = f"there is no snapshot {self.params.snapshot}.", "Leave it out for the current one."
                    raise DataError(Fault(name, what, hint, "no table"))
            names = [field.name for field in found.schema().fields]
            wanted = tuple(one for one in names if access.columns is None or one in access.columns)
            scan = found.scan(selected_fields=wanted, snapshot_id=snapshot.snapshot_id if snapshot else None)
            for place in [
                *([snapshot.manifest_list] if snapshot else []),
                *(one.file.file_path for one in scan.plan_files()),
            ]:
                if parse_address(place).scheme not in ("", "file"):
                    access.check_remote(name)
            reader = scan.to_arrow_batch_reader()
        return Rows(reader, name, f"snapshot {snapshot.snapshot_id}" if snapshot else "no snapshot", names=names)


def _catalogue(table: TableConfig) -> Catalog:
    """Return the catalogue of an address, by PyIceberg's own settings, which hold the credentials."""
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError:
        raise MissingDependency("pyiceberg", "iceberg", "Reading Iceberg tables") from None
    try:
        return load_catalog(parse_address(table.places[0]).path.strip("/"))
    except ValueError as error:
        what = f"this catalogue is not set up: {error}."
        raise DataError(Fault(shown(table), what, SETTINGS, "credentials")) from None


def _from_catalog(table: TableConfig) -> Table:
    """Return a table of a catalogue."""
    name, found = shown(table), _catalogue(table)
    if not table.table:
        raise DataError(
            Fault(name, "a catalogue needs the name of a table.", 'Set `table`: "shop.events".', "no table")
        )
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        return found.load_table(table.table)
    except (NoSuchTableError, NoSuchNamespaceError):
        hint = "Write it with its namespaces, as in shop.events."
        raise DataError(Fault(name, f"there is no table '{table.table}'.", hint, "no table")) from None


def _from_folder(table: TableConfig, access: Access) -> Table:
    """Return the table of a folder as its latest metadata file describes it."""
    try:
        from pyiceberg.table import StaticTable
    except ImportError:
        raise MissingDependency("pyiceberg", "iceberg", "Reading Iceberg tables") from None
    folder = access.root / table.places[0]
    files = [folder] if folder.is_file() else sorted((folder / "metadata").glob("*.metadata.json"), key=_number)
    if not files:
        hint = "Give the folder that holds metadata/, or iceberg://CATALOG and `table`."
        raise DataError(Fault(str(folder), "there is no Iceberg table here.", hint, "no table"))
    return StaticTable.from_metadata(files[-1].absolute().as_uri())


def _number(path: object) -> tuple[int, str]:
    """Return the number of a metadata file: 00012-....metadata.json or v12.metadata.json."""
    name = str(path).rsplit("/", 1)[-1]
    digits = name.removeprefix("v").split("-")[0].split(".")[0]
    return int(digits) if digits.isdigit() else -1, name
