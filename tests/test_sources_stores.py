"""The providers of addresses: web servers, S3 (a real protocol server), FTP and Azure's addresses."""

import gzip
import io
import threading
from base64 import b64encode
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet
import pytest

from anyrec.core.config import TableConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError
from anyrec.data.sources.contract import Access
from anyrec.data.sources.open_table import open_table, provider_of

TABLE = pa.table({"user": ["u1", "ü2", "u1"], "item": [7, 8, 9]})
CSV = "user,item\nu1,7\nü2,8\nu1,9\n".encode()
TEXTS = [{"user": "u1", "item": "7"}, {"user": "ü2", "item": "8"}, {"user": "u1", "item": "9"}]


def opened(path, urls=True, columns=None, **table):
    access = Access(allow_urls=urls, columns=columns and frozenset(columns))
    rows = open_table(TableConfig.model_validate({"path": path, **table}), access, discover())
    found = rows.reader.read_all().to_pylist()
    if access.faults:
        raise access.faults.error()
    return found, rows


def parquet(table=TABLE):
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


# Web servers


class Site(BaseHTTPRequestHandler):
    """A server of `files`: bytes, or a function of the handler that returns status, headers and body."""

    files = {}
    seen = []

    def do_GET(self):
        Site.seen.append((self.path, dict(self.headers)))
        found = self.files.get(self.path, (404, {}, b""))
        status, headers, body = (
            found(self) if callable(found) else (200, {}, found) if isinstance(found, bytes) else found
        )
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    Site.files, Site.seen = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "body", "rows"),
    [
        ("/log.csv", CSV, TEXTS),
        ("/log.csv.gz", gzip.compress(CSV), TEXTS),
        ("/ö a/log.csv?year=2024", CSV, TEXTS),
        ("/download/42", gzip.compress(CSV), TEXTS),
        ("/log.parquet", parquet(), TABLE.to_pylist()),
    ],
)
def test_files_of_web_servers_are_read_in_any_format(site, name, body, rows):
    Site.files["/%C3%B6%20a/log.csv?year=2024" if "ö" in name else name] = body
    found, read = opened(site + name)
    assert found == rows and read.version.startswith("sha256 ") and len(Site.seen) == 1


def test_the_tag_of_a_file_is_its_version(site):
    Site.files["/log.csv"] = (200, {"ETag": 'W/"v7"'}, CSV)
    assert opened(f"{site}/log.csv")[1].version == "etag v7"


def test_several_files_follow_one_another(site):
    Site.files |= {"/a.csv": CSV, "/b.csv": CSV}
    found, rows = opened([f"{site}/b.csv", f"{site}/a.csv"])
    assert found == TEXTS * 2 and rows.place(4, "user") == "a.csv line 3, column 'user'"


@pytest.mark.parametrize("way", ["address", "netrc"])
def test_passwords_are_sent_to_their_own_server_only_and_never_shown(site, way, tmp_path, monkeypatch):
    def private(handler):
        if handler.headers.get("Authorization") != "Basic " + b64encode(b"me:Zq9secret").decode():
            return 401, {}, b""
        return 302, {"Location": site.replace("127.0.0.1", "localhost") + "/log.csv"}, b""

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("anyrec.core.secrets._WHOLE", {})
    Site.files |= {"/private.csv": private, "/log.csv": CSV}
    address = f"{site}/private.csv"
    with pytest.raises(DataError, match=r"refuses access \(401 Unauthorized\). Add the server to ~/.netrc"):
        opened(address)
    if way == "netrc":
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password Zq9secret\n")
        (tmp_path / ".netrc").chmod(0o600)
    else:
        address = address.replace("://", "://me:Zq9secret@")
    found, rows = opened(address)
    assert found == TEXTS and "Zq9secret" not in repr(rows) and rows.name == "private.csv"
    assert [("Authorization" in headers) for path, headers in Site.seen if path == "/log.csv"] == [False]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b""), "there is no such file"),
        ((500, {}, b""), "answers with an error"),
        ((403, {}, b""), "refuses access"),
        ((200, {}, b""), "this file is empty"),
        ((200, {"Content-Length": "99"}, CSV), "the download ended early"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "answers with an error|cannot be reached"),
        ((302, {"Location": "/log.csv?token=Zq9secret"}, b""), "answers with an error|cannot be reached"),
    ],
)
def test_answers_that_are_no_file_are_errors(site, answer, message):
    Site.files["/log.csv?token=Zq9secret"] = answer
    with pytest.raises(DataError, match=message) as caught:
        opened(f"{site}/log.csv?token=Zq9secret")
    assert "Zq9secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nohost.invalid", "[bad"])
def test_servers_that_cannot_be_reached_are_errors(host):
    with pytest.raises(DataError, match="cannot be reached"):
        opened(f"http://{host}/log.csv")


@pytest.mark.parametrize(
    "path", ["https://host/log.csv", "s3://bucket/log.csv", "gs://bucket/x", "az://box/x", "ftp://host/x"]
)
def test_addresses_need_permission(path):
    with pytest.raises(DataError, match=r"other machines are not opened. Set data.allow_urls to true") as caught:
        opened(path.replace("://", "://me:Zq9secret@"), urls=False)
    assert caught.value.exit_code == 2 and "Zq9secret" not in str(caught.value)


# S3


@pytest.fixture(scope="module")
def bucket():
    """A server of the S3 protocol with the bucket `shop`; returns a function that writes an object."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "reader")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "Zq9secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="shop")
        yield partial(client.put_object, Bucket="shop")
        server.stop()


def test_objects_are_read_by_name_pattern_and_folder(bucket):
    for name, body in {
        "log.csv.gz": gzip.compress(CSV),
        "events/2024/b.parquet": parquet(TABLE.slice(2)),
        "events/2024/a.parquet": parquet(TABLE.slice(0, 2)),
        "events/2024/a.txt": b"not this",
        "events/2024/deep/c.parquet": parquet(),
        "parts/year=2024/x.csv": CSV,
        "parts/_SUCCESS": b"",
    }.items():
        bucket(Key=name, Body=body)
    found, rows = opened("s3://shop/log.csv.gz")
    assert found == TEXTS and rows.name == "log.csv.gz" and rows.version.startswith("etag ")
    for pattern in ("s3://shop/events/2024/*.parquet", "s3://shop/e*/20?4/[ab].parquet".replace("?", "[2]")):
        found, rows = opened(pattern, columns=["item"])
        assert found == TABLE.select(["item"]).to_pylist() and rows.names == ["user", "item"]
    assert len(opened("s3://shop/events/**/*.parquet")[0]) == 6
    found, rows = opened("s3a://shop/parts/")
    assert found == [{**row, "year": "2024"} for row in TEXTS]


def test_the_version_of_an_object_is_that_of_a_bucket_that_keeps_versions(bucket):
    client = bucket.func.__self__
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    made = client.put_object(Bucket="versions", Key="log.csv", Body=CSV)["VersionId"]
    assert opened("s3://versions/log.csv")[1].version == f"versionid {made}"


def test_the_version_changes_with_the_object(bucket):
    bucket(Key="changing.csv", Body=CSV)
    before = opened("s3://shop/changing.csv")[1].version
    bucket(Key="changing.csv", Body=CSV + b"u3,1\n")
    assert opened("s3://shop/changing.csv")[1].version != before


def test_options_and_keys_in_the_address_are_used(bucket, monkeypatch):
    bucket(Key="log.csv", Body=CSV, ACL="public-read")
    import os

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_REGION")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    provider = {"type": "objects", "endpoint": endpoint, "region": "us-east-1"}
    assert opened("s3://shop/log.csv", provider={**provider, "anonymous": True})[0] == TEXTS
    assert opened("s3://reader:Zq9/secret@shop/log.csv", provider=provider)[0] == TEXTS
    host = endpoint.removeprefix("http://")
    address = f"s3://reader:Zq9secret@shop/log.csv?region=us-east-1&scheme=http&endpoint_override={host}"
    found, rows = opened(address)
    assert found == TEXTS and "Zq9" not in repr(rows)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://shop/none.csv", "s3://shop/none.csv: there is no such file"),
        ("s3://nowhere/log.csv", "there is no such"),
        ("s3://nowhere/*.csv", "no file matches this pattern"),
        ("s3://shop/none*.csv", "no file matches this pattern"),
    ],
)
def test_objects_that_are_not_there_are_errors(bucket, path, message):
    with pytest.raises(DataError, match=message):
        opened(path)


def test_a_delta_table_in_a_store_is_not_read_as_its_files(bucket):
    bucket(Key="lake/part-0.parquet", Body=parquet())
    bucket(Key="lake/_delta_log/00000000000000000000.json", Body=b"{}")
    with pytest.raises(DataError, match=r'is a Delta table. Set `provider` to \{"type": "delta"\}'):
        opened("s3://shop/lake")


def test_a_store_that_cannot_be_reached_is_an_error(monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    provider = {"type": "objects", "endpoint": "http://127.0.0.1:1", "region": "us-east-1"}
    with pytest.raises(DataError, match="the store cannot be reached") as caught:
        opened("s3://reader:Zq9secret@shop/log.csv", provider=provider)
    assert "Zq9secret" not in str(caught.value)


# Other stores


def test_files_of_ftp_servers_are_read(tmp_path):
    servers = pytest.importorskip("pyftpdlib.servers", reason="pyftpdlib is not installed")
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "log.csv").write_bytes(CSV)

    class Handler(FTPHandler):
        authorizer = DummyAuthorizer()

    Handler.authorizer.add_user("me", "Zq9secret", str(tmp_path), perm="elr")
    server = servers.ThreadedFTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.1, "handle_exit": False})
    thread.start()
    host = f"127.0.0.1:{server.address[1]}"
    try:
        for path in ("in/log.csv", "in/*.csv"):
            found, rows = opened(f"ftp://me:Zq9secret@{host}/{path}")
            assert found == TEXTS and rows.name == "log.csv"
        with pytest.raises(DataError, match="access is refused") as caught:
            opened(f"ftp://me:Zq9other@{host}/in/log.csv")
        assert "Zq9other" not in str(caught.value)
    finally:
        server.close_all()
        thread.join()


def test_azure_takes_the_account_from_its_variables(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(DataError, match=r"the account is not known. Set AZURE_STORAGE_ACCOUNT"):
        opened("az://box/log.csv")


def test_schemes_of_packages_that_are_missing_name_them(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "paramiko", None)
    with pytest.raises(DataError, match="paramiko"):
        opened("sftp://host/log.csv")


def test_each_address_has_a_provider():
    registry, root = discover(), Access().root
    for scheme, name in {"https": "http", "S3": "objects", "gs": "objects", "abfs": "objects"}.items():
        assert provider_of(TableConfig(path=f"{scheme}://host/x"), registry, "", root) == name
