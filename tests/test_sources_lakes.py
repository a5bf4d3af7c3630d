"""The providers of Delta, Iceberg, Hugging Face and Kafka, each against the real library."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from anyrec.core.config import TableConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError, MissingDependency
from anyrec.data.dataset import Dataset
from anyrec.data.sources.contract import Access
from anyrec.data.sources.open_table import open_table

TABLE = pa.table({"user_id": [12345678901234567, 2, 3], "item": ["007", "8", None], "stars": [4.5, None, 3.0]})


def opened(path=None, root=".", urls=False, columns=None, **table):
    access = Access(Path(root), urls, columns and frozenset(columns))
    rows = open_table(TableConfig.model_validate({"path": path, **table}), access, discover())
    found = rows.reader.read_all().to_pylist()
    if access.faults:
        raise access.faults.error()
    return found, rows


# Delta


@pytest.fixture
def lake(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(tmp_path / "lake", TABLE)
    return tmp_path


def test_a_folder_of_a_delta_table_is_read_as_its_latest_version(lake):
    import deltalake

    found, rows = opened("lake", lake)
    assert found == TABLE.to_pylist() and rows.version == "version 0" and rows.names == TABLE.column_names
    deltalake.DeltaTable(lake / "lake").delete("user_id = 2")
    found, rows = opened("lake", lake)
    assert found == TABLE.take([0, 2]).to_pylist() and rows.version == "version 1"
    found, rows = opened("lake", lake, columns=["stars"], provider={"type": "delta", "version": 0})
    assert found == TABLE.select(["stars"]).to_pylist() and rows.version == "version 0"


def test_delta_tables_that_are_not_there_are_errors(lake):
    for version, message in ((9, "there is no version 9"), (None, "there is no Delta table")):
        path = "lake" if version else "none"
        with pytest.raises(DataError, match=message):
            opened(path, lake, provider={"type": "delta", **({"version": version} if version else {})})
    with pytest.raises(DataError, match="other machines are not opened"):
        opened("s3://bucket/lake", provider={"type": "delta"})


def test_delta_tables_of_object_stores_are_read(monkeypatch):
    deltalake = pytest.importorskip("deltalake")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import boto3

    for name, value in {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "Zq9secret", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="lakes")
        deltalake.write_deltalake("s3://lakes/log", TABLE, storage_options={"allow_http": "true"})
        found, rows = opened("s3://lakes/log", urls=True, provider={"type": "delta"})
        assert found == TABLE.to_pylist() and rows.version == "version 0" and rows.name == "s3://lakes/log"
    finally:
        server.stop()
    with pytest.raises(DataError, match="cannot be reached"):
        opened("s3://lakes/log", urls=True, provider={"type": "delta"})


# Iceberg


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    catalog = pytest.importorskip("pyiceberg.catalog")
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__URI", f"sqlite:///{tmp_path}/catalogue.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__WAREHOUSE", f"file://{tmp_path}/warehouse")
    from pyiceberg.utils.config import Config

    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())  # it is read once, at import
    found = catalog.load_catalog("shop")
    found.create_namespace("web")
    found.create_table("web.log", schema=TABLE.schema).append(TABLE)
    return found


def test_iceberg_tables_are_read_by_catalogue_and_by_folder(catalogue, tmp_path):
    table = catalogue.load_table("web.log")
    first = table.current_snapshot().snapshot_id
    table.append(TABLE.slice(0, 1))
    folder = "warehouse/web/log"
    for place in ({"path": "iceberg://shop", "table": "web.log", "urls": True}, {"path": folder}):
        found, rows = opened(root=tmp_path, **place)
        assert sorted(map(str, found)) == sorted(map(str, [*TABLE.to_pylist(), TABLE.to_pylist()[0]]))
        assert rows.version == f"snapshot {table.current_snapshot().snapshot_id}"
        provider = {"type": "iceberg", "snapshot": first}
        found, rows = opened(root=tmp_path, columns=["item"], provider=provider, **place)
        assert found == TABLE.select(["item"]).to_pylist() and rows.version == f"snapshot {first}"
        assert rows.names == TABLE.column_names
        with pytest.raises(DataError, match="there is no snapshot 5"):
            opened(root=tmp_path, **{**place, "provider": {"type": "iceberg", "snapshot": 5}})


def test_an_iceberg_table_without_rows_is_an_empty_table(catalogue, tmp_path):
    catalogue.create_table("web.empty", schema=TABLE.schema)
    assert opened("warehouse/web/empty", tmp_path)[0] == []


@pytest.mark.parametrize(
    ("table", "urls", "message"),
    [
        ({"path": "iceberg://shop", "table": "web.none"}, True, "there is no table 'web.none'"),
        ({"path": "iceberg://shop"}, True, "needs the name of a table"),
        ({"path": "iceberg://other", "table": "web.log"}, True, "is not set up.*pyiceberg.yaml"),
        ({"path": "iceberg://shop", "table": "web.log"}, False, "other machines are not opened"),
        ({"path": "none", "provider": {"type": "iceberg"}}, False, "there is no Iceberg table here"),
    ],
)
def test_iceberg_tables_that_cannot_be_read_are_errors(catalogue, tmp_path, table, urls, message):
    with pytest.raises(DataError, match=message):
        opened(root=tmp_path, urls=urls, **table)


# Hugging Face


def test_saved_datasets_are_read_in_their_own_order(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict(TABLE.to_pydict()).select([2, 0])
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=dataset).save_to_disk(tmp_path / "only")
    datasets.DatasetDict(train=dataset, test=dataset.select([0])).save_to_disk(tmp_path / "both")
    for folder in ("one", "only"):
        found, rows = opened(folder, tmp_path)
        assert found == TABLE.take([2, 0]).to_pylist() and "2 rows" in rows.version
    provider = {"type": "huggingface", "split": "test"}
    assert len(opened("both", tmp_path, provider=provider)[0]) == 1
    with pytest.raises(DataError, match=r"has several splits. Set the provider's option split"):
        opened("both", tmp_path)
    with pytest.raises(DataError, match=r"no split 'tests'.*Did you mean 'test'\?"):
        opened("both", tmp_path, provider={**provider, "split": "tests"})


def test_a_dataset_of_the_hub_is_read_at_the_commit_that_is_recorded(monkeypatch):
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    calls = []

    def load(*arguments, **options):
        calls.append((arguments, options))
        return datasets.DatasetDict(train=datasets.Dataset.from_dict(TABLE.to_pydict()))

    class Api:
        def dataset_info(self, name, revision):
            return huggingface_hub.DatasetInfo(id=name, sha=f"sha-{revision}", tags=[])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    provider = {"type": "huggingface", "name": "5core"}
    for path in ("hf://datasets/owner/log@main", "hf://owner/log@main"):
        found, rows = opened(path, urls=True, provider=provider)
        assert found == TABLE.to_pylist() and rows.version == "commit sha-main"
    assert calls == [(("owner/log", "5core"), {"revision": "sha-main"})] * 2
    with pytest.raises(DataError, match="other machines are not opened"):
        opened("hf://datasets/owner/log")


def test_files_of_a_repository_are_read_in_any_format(monkeypatch):
    import huggingface_hub
    from fsspec.implementations.memory import MemoryFileSystem

    store = MemoryFileSystem()
    store.pipe("/datasets/owner/log/data/a.csv", b"user,item\nu1,1\n")
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: store)
    monkeypatch.setattr(MemoryFileSystem, "_strip_protocol", classmethod(lambda cls, path: "/" + path.strip("/")))
    found, rows = opened("hf://datasets/owner/log/data/a.csv", urls=True)
    assert found == [{"user": "u1", "item": "1"}] and rows.name == "a.csv"


def test_a_hub_that_cannot_be_reached_is_an_error():
    pytest.importorskip("datasets")  # the tests run with HF_HUB_OFFLINE=1
    with pytest.raises(DataError, match=r"hf://datasets/nobody/nothing: .*(reach|offline)"):
        opened("hf://datasets/nobody/nothing", urls=True)


# Kafka


@pytest.fixture(scope="module")
def topic():
    """The address of a broker of the client's own mock cluster, with the topic `log`."""
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    for n in range(100):
        value = json.dumps({"user": f"u{n % 7}", "item": n}, indent=1 if n % 2 else None)
        producer.produce("log", value.encode(), key=b"k%d" % n, partition=n % 3, timestamp=1_700_000_000_000 + n)
    producer.produce("log", None, key=b"k1", partition=0)
    producer.produce("bad", b"no json", partition=0)
    producer.produce("bad", b'{"user": 1}', partition=0)
    producer.produce("schema", b"\0\0\0\0\7" + b'{"user": "u1", "item": 1}', partition=0)
    producer.produce("avro", b"\0\0\0\0\7" + b"\x04u1\x02", partition=0)
    producer.flush(10)
    yield f"kafka://{broker.host}:{broker.port}/log"
    del producer


def test_a_topic_is_read_to_its_end_partition_by_partition(topic):
    found, rows = opened(topic, urls=True)
    expected = [n for partition in range(3) for n in range(100) if n % 3 == partition]
    assert [row["item"] for row in found] == expected
    assert found[0] == {"kafka_timestamp": 1_700_000_000_000, "kafka_key": "k0", "user": "u0", "item": 0}
    assert "0: 0 to 35; 1: 0 to 33; 2: 0 to 33" in rows.version
    assert rows.place(34, "item") == "log partition 1 offset 0, column 'item'"
    assert any("1 messages without a value" in note for note in rows.notes)


def test_a_topic_is_read_up_to_a_time(topic):
    provider = {"type": "kafka", "until": "2023-11-14T22:13:20.050Z"}
    found, rows = opened(topic, urls=True, columns=["item"], provider=provider)
    assert sorted(row["item"] for row in found) == list(range(50)) and "until 2023-11-14" in rows.version
    with pytest.raises(DataError, match="holds no messages"):
        opened(topic, urls=True, provider={**provider, "until": "2000-01-01"})


def test_messages_that_are_no_json_are_faults(topic):
    with pytest.raises(DataError, match=r"bad.jsonl row 1"):
        opened(topic.replace("/log", "/bad"), urls=True)


def test_messages_with_the_number_of_a_schema_are_read_if_they_are_json(topic):
    found, _ = opened(topic.replace("/log", "/schema"), urls=True, columns=["user", "item"])
    assert found == [{"user": "u1", "item": 1}]
    with pytest.raises(DataError, match=r"avro partition 0 offset 0: this message is binary, as those of Avro"):
        opened(topic.replace("/log", "/avro"), urls=True)


def test_topics_that_cannot_be_read_are_errors(topic, monkeypatch, tmp_path):
    with pytest.raises(DataError, match=r"there is no topic 'logs'. Did you mean 'log'\?"):
        opened(topic + "s", urls=True)
    with pytest.raises(DataError, match="names no topic"):
        opened(topic.removesuffix("/log"), urls=True)
    with pytest.raises(DataError, match="other machines are not opened"):
        opened(topic)
    monkeypatch.setattr("anyrec.data.providers.kafka.SECONDS", 2)
    (tmp_path / "client.properties").write_text("# ours\nsocket.connection.setup.timeout.ms=1000\n")
    provider = {"type": "kafka", "properties": "client.properties"}
    with pytest.raises(DataError, match="the brokers cannot be reached") as caught:
        opened("kafka://me:Zq9secret@127.0.0.1:1/log", tmp_path, urls=True, provider=provider)
    assert "Zq9secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "table", "extra"),
    [
        ("deltalake", {"path": "x", "provider": {"type": "delta"}}, "delta"),
        ("pyiceberg.catalog", {"path": "iceberg://shop", "table": "a.b"}, "iceberg"),
        ("datasets", {"path": "x", "provider": {"type": "huggingface"}}, "huggingface"),
        ("confluent_kafka", {"path": "kafka://host/topic"}, "kafka"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, module, table, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingDependency, match=rf"pip install 'anyrec\[{extra}\]'"):
        opened(urls=True, **table)


def test_datasets_of_hugging_face_are_tables_in_python():
    datasets = pytest.importorskip("datasets")
    log = datasets.Dataset.from_dict({"user_id": ["a", "b", "a"], "item_id": [1, 2, 2]}).select([2, 0, 1])
    users, items = (datasets.Dataset.from_dict({name: log.unique(name)}) for name in ("user_id", "item_id"))
    read = Dataset.from_tables(users, items, log)
    same = Dataset.from_tables(*(one.to_pandas() for one in (users, items, log)))
    assert read.fingerprint() == same.fingerprint() and len(read.interactions) == 3
