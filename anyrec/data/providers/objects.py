"""Object stores and other file systems by address."""

from __future__ import annotations

import os
from datetime import timedelta
from urllib.parse import quote, unquote

import fsspec
from pyarrow.fs import FileSystem, FSSpecHandler, GcsFileSystem, PyFileSystem, S3FileSystem
from pydantic import Field

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.secrets import Address, parse_address
from anyrec.data.sources.contract import Access, Provider, Rows, SourceFile
from anyrec.data.sources.decode import decode
from anyrec.data.sources.open_table import without_secrets
from anyrec.data.sources.stored_files import CREDENTIALS, store_errors, stored_files

RETRIES, RETRY_SECONDS = "retry_limit_seconds", 30
"""Parameter of a Google address, and its default; Arrow tries for 15 minutes otherwise."""
S3, GOOGLE, AZURE = ("s3", "s3a"), ("gs", "gcs"), ("az", "abfs", "abfss")


class Objects(Provider):
    """Files of S3, Google Cloud Storage, Azure, FTP and SFTP by address, pattern or folder: s3://bucket/*.parquet."""

    type = "objects"
    schemes = "s3 s3a gs gcs az abfs abfss ftp sftp"
    remote = True

    class Params(Provider.Params):
        """Options of the store. Those that are not set are found in its own settings and environment variables."""

        anonymous: bool = Field(default=False, description="Read public data of S3 or Google without credentials.")
        region: str | None = Field(default=None, max_length=100, description="Region of an S3 bucket.")
        endpoint: str | None = Field(
            default=None,
            max_length=1000,
            description="Address of another store with the protocol of S3, Google or Azure; for S3 by default "
            "AWS_ENDPOINT_URL.",
        )

    params: Params

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open one or more files, whose rows follow one another in the order of their names."""
        files: list[SourceFile] = []
        for place in table.places:
            parts = parse_address(access.address(place))
            with store_errors(without_secrets(place)):
                files += stored_files(*self._store(parts))
        return decode(files, table.format, access)

    def _store(self, parts: Address) -> tuple[FileSystem, str, str]:
        """Return the file system of an address, the path within it, and what precedes the path in the address."""
        path, start = unquote(parts.path), f"{parts.scheme}://"
        if parts.scheme in S3:
            return self._s3(parts), path, start
        if parts.scheme in GOOGLE:
            return self._google(parts), path, start
        if parts.scheme in AZURE:
            return *self._azure(parts), start
        host, _, inner = path.partition("/")
        return _by_fsspec(parts), f"/{inner}", start + host

    def _google(self, parts: Address) -> FileSystem:
        if self.params.anonymous or self.params.endpoint:
            given = {}
            if self.params.endpoint:
                given["scheme"], given["endpoint_override"] = _scheme_and_host(self.params.endpoint)
            limit = timedelta(seconds=RETRY_SECONDS)
            return GcsFileSystem(anonymous=self.params.anonymous, retry_time_limit=limit, **given)
        limited = any(name == RETRIES for name, _ in parts.parameters)
        address = _bucket(parts, "gs")
        if not limited:
            address += f"{'&' if '?' in address else '?'}{RETRIES}={RETRY_SECONDS}"
        return FileSystem.from_uri(address)[0]

    def _s3(self, parts: Address) -> FileSystem:
        if not (self.params.anonymous or self.params.region or self.params.endpoint):
            return FileSystem.from_uri(_bucket(parts, "s3"))[0]
        keys = {"access_key": unquote(parts.user), "secret_key": unquote(parts.password)} if parts.password else {}
        given = {"region": self.params.region, "endpoint_override": self.params.endpoint}
        keys |= {name: value for name, value in given.items() if value}
        return S3FileSystem(anonymous=self.params.anonymous, **keys)

    def _azure(self, parts: Address) -> tuple[FileSystem, str]:
        """Return the store and path of az://container/path or abfs://container@account.dfs.core.windows.net/path."""
        from pyarrow.fs import AzureFileSystem

        path, account = unquote(parts.path), os.environ.get("AZURE_STORAGE_ACCOUNT", "")
        if parts.user:
            host, _, inner = path.partition("/")
            path, account = f"{parts.user}/{inner}", host.partition(".")[0]
        if not account:
            raise DataError(
                Fault(f"{parts.scheme}://{path}", "the account is not known.", CREDENTIALS["az"], "credentials")
            )
        key = unquote(parts.password or "") or os.environ.get("AZURE_STORAGE_KEY")
        token = None if key else os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        given = {}
        if self.params.endpoint:
            scheme, host = _scheme_and_host(self.params.endpoint)
            given = {"blob_storage_scheme": scheme, "dfs_storage_scheme": scheme}
            given |= {"blob_storage_authority": host, "dfs_storage_authority": host}
        return AzureFileSystem(account_name=account, account_key=key, sas_token=token, **given), path


def _bucket(parts: Address, scheme: str) -> str:
    """Return the address of a bucket. A user without a password is left out."""
    user = f"{quote(unquote(parts.user), safe='')}:{quote(unquote(parts.password), safe='')}@" if parts.password else ""
    query = "&".join(f"{name}={value}" for name, value in parts.parameters)
    return f"{scheme}://{user}{parts.path.partition('/')[0]}" + (f"?{query}" if query else "")


def _scheme_and_host(endpoint: str) -> tuple[str, str]:
    """Return http or https, which is the default, and the rest of an address."""
    scheme, dots, host = endpoint.rstrip("/").partition("://")
    return (scheme, host) if dots else ("https", scheme)


def _by_fsspec(parts: Address) -> FileSystem:
    """Return a file system of fsspec, which names the package that it needs."""
    host, _, port = parts.path.partition("/")[0].partition(":")
    given = {"host": host, "username": unquote(parts.user), "password": unquote(parts.password or "")}
    options: dict[str, str | int] = {name: value for name, value in given.items() if value}
    if port.isdigit():
        options["port"] = int(port)
    try:
        return PyFileSystem(FSSpecHandler(fsspec.filesystem(parts.scheme, **options)))
    except ImportError as error:
        hint = "Install the package, or copy the file."
        raise DataError(Fault(f"{parts.scheme}://{host}", f"{error}.", hint, "missing package")) from None
