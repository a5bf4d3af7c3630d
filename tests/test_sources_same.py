"""The same rows from files, databases and object stores are the same data and the same model; passwords stay out."""

import io
import json
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from databases import PASSWORD, postgresql_server
from small import call

from anyrec import Dataset, Recommender

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("adbc_driver_sqlite")
postgresql = pytest.importorskip("adbc_driver_postgresql.dbapi")
moto = pytest.importorskip("moto.server", reason="moto is not installed")

MOVIELENS = Path(os.environ.get("ANYREC_DATA", "none")) / "ml-latest-small"
COLUMNS = {
    "ratings": {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"},
    "movies": {
        "movieId": "item_id",
        "title": ["text.title", {"to": "continuous.year", "extract": "year"}],
        "genres": {"to": "categorical.genres", "split": "|"},
    },
}
NAMES = {"interactions": "ratings", "items": "movies"}
KINDS = {pa.int64(): "bigint", pa.float64(): "double precision", pa.string(): "text"}


def shop():
    """Ratings and movies like those of MovieLens, with what files and databases could read differently."""
    ratings = {
        "userId": [n % 40 + 1 for n in range(600)],
        "movieId": [(n * 7 + n // 40) % 25 + 100 for n in range(600)],
        "rating": [0.5 + (n * n) % 10 / 2 for n in range(600)],
        "timestamp": [1_500_000_000 + n // 3 * 60 for n in range(600)],
    }
    movies = {
        "movieId": list(range(100, 126)),
        "title": [f'Film "{n}", née ({1990 + n})' for n in range(25)] + ["007"],
        "genres": [["Comedy|Drama", "Drama", "(no genres listed)"][n % 3] for n in range(26)],
    }
    return pa.table(ratings), pa.table(movies)


def latest_small():
    if not MOVIELENS.is_dir():
        pytest.skip("ANYREC_DATA has no ml-latest-small")
    return tuple(pyarrow.csv.read_csv(MOVIELENS / f"{name}.csv") for name in COLUMNS)


@pytest.fixture(scope="module")
def server():
    with postgresql_server() as address:
        yield address


@pytest.fixture(scope="module")
def store():
    """A client of a server of the S3 protocol with the bucket `same`."""
    import boto3

    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    keys = {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "Zq9secret", "REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (keys | {"EC2_METADATA_DISABLED": "true"}).items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*started.get_host_and_port()))
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="same")
        yield client
    started.stop()


def containers(tables, folder, server, store):
    """Write tables into each container; return where each table is, by container and table."""
    found = {name: {} for name in ("csv", "sqlite", "duckdb", "postgresql", "s3")}
    lite = sqlite3.connect(folder / "shop.sqlite")
    with (
        lite,
        duckdb.connect(folder / "shop.duckdb") as duck,
        postgresql.connect(server.replace(PASSWORD, quote(PASSWORD, safe=""))) as post,
        post.cursor() as cursor,
    ):
        for name, table in zip(COLUMNS, tables, strict=True):
            pyarrow.csv.write_csv(table, folder / f"{name}.csv")
            found["csv"][name] = {"path": f"{name}.csv"}
            created = ", ".join(f'"{one.name}" {KINDS[one.type]}' for one in table.schema)
            lite.execute(f"CREATE TABLE {name} ({created})")
            places = ", ".join("?" * table.num_columns)
            lite.executemany(f"INSERT INTO {name} VALUES ({places})", zip(*table.to_pydict().values(), strict=True))
            duck.register("arrow_table", table)
            duck.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow_table")
            cursor.execute(f"DROP TABLE IF EXISTS {name}")
            cursor.adbc_ingest(name, table, mode="create")
            file = io.BytesIO()
            pyarrow.parquet.write_table(table, file)
            store.put_object(Bucket="same", Key=f"{folder.name}/{name}/part-0.parquet", Body=file.getvalue())
            found["sqlite"][name] = {"database": "shop.sqlite", "table": name}
            found["duckdb"][name] = {"database": "duckdb:///shop.duckdb", "query": f"select * from {name}"}
            found["postgresql"][name] = {"database": server, "query": f"select * from {name}"}
            found["s3"][name] = {"path": f"s3://same/{folder.name}/{name}/*.parquet"}
        post.commit()
    lite.close()
    return found


def config_of(places, model="two_tower"):
    sources = {
        "items": [{**places["movies"], "columns": COLUMNS["movies"]}],
        "interactions": [{**places["ratings"], "columns": COLUMNS["ratings"]}],
    }
    return {
        "name": "m",
        "data": {"allow_urls": True, "unknown_ids": "drop", "sources": sources},
        "model": {"type": model},
        **(
            {"features": {"text": {"type": "text_statistics"}}, "training": {"epochs": 1}}
            if model == "two_tower"
            else {}
        ),
        "evaluation": {"baselines": [], "report": False},
        "seed": 7,
    }


def trained(config, folder):
    """Train a model; return the hash of its data, the bytes of each file of weights, and lists."""
    (folder / "cfg.json").write_text(json.dumps(config))
    recommender = Recommender.from_config(folder / "cfg.json").fit(progress=False)
    model = recommender.save(folder / "model")
    files = [*model.rglob("*.safetensors"), *model.rglob("*.arrow"), *model.rglob("*.npz")]
    weights = {path.name: path.read_bytes() for path in files}
    return recommender.dataset.fingerprint(), weights, recommender.recommend([1, 2, 3], k=5)


@pytest.mark.parametrize(
    ("make", "model"), [(shop, "two_tower"), pytest.param(latest_small, "item_knn", marks=pytest.mark.slow)]
)
def test_the_same_rows_from_any_container_are_the_same_model_bit_for_bit(make, model, tmp_path, server, store):
    found = {}
    for name, places in containers(make(), tmp_path, server, store).items():
        found[name] = trained(config_of(places, model), tmp_path)
    assert len(found["csv"][1]) > 0
    for name, (data, weights, lists) in found.items():
        assert data == found["csv"][0], name
        assert weights == found["csv"][1] and lists == found["csv"][2], name


def test_a_password_is_in_no_file_and_no_output_of_a_run(tmp_path, server, store, monkeypatch):
    monkeypatch.setattr("anyrec.core.secrets._WHOLE", {})
    places = containers(shop(), tmp_path, server, store)["postgresql"]
    config = config_of(places)
    sources = config["data"].pop("sources")
    config["evaluation"]["report"] = True
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    outputs = []
    given = ("--config", tmp_path / "cfg.json", "--set", f"data.sources={json.dumps(sources)}")
    for command in (("train", "--output", tmp_path / "runs"), ("validate",), ("describe",), ("doctor",)):
        code, out, err = call(*command, *given)
        assert code == 0, err
        outputs += [out, err]
    wrong = json.dumps(sources).replace("select * from ratings", "select * from nothing")
    code, out, err = call("train", *given[:2], "--set", f"data.sources={wrong}", "--output", tmp_path / "failed")
    assert code == 2 and "there is no table 'nothing'" in err
    outputs += [out, err]
    files = [path for folder in ("runs", "failed") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    outputs += [path.read_bytes().decode("latin-1") for path in files]
    assert len(files) > 5
    for secret in (PASSWORD, quote(PASSWORD, safe=""), json.dumps(PASSWORD)[1:-1]):
        assert not [text[:100] for text in outputs if secret in text]
    saved = json.loads((tmp_path / "runs" / "m" / "config.json").read_text())["data"]["sources"]["items"][0]
    assert saved["database"] == server.replace(f":{PASSWORD}", "")
    versions = json.loads((tmp_path / "runs" / "m" / "environment.json").read_text())["sources"]
    assert all("snapshot" in version for version in versions.values()) and len(versions) == 2
    monkeypatch.setattr("anyrec.core.secrets._WHOLE", {})
    monkeypatch.delenv("PGPASSWORD", raising=False)
    again = ("train", "--config", tmp_path / "runs" / "m" / "config.json", "--output", tmp_path / "again")
    code, _, err = call(*again)
    assert code == 2 and "no password supplied" in err and "PGPASSWORD" in err
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert call(*again)[0] == 0


def test_init_finds_the_tables_of_databases_and_stores(tmp_path, server, store, monkeypatch):
    monkeypatch.setattr("anyrec.core.secrets._WHOLE", {})
    monkeypatch.chdir(tmp_path)
    containers(shop(), tmp_path, server, store)
    queries = [f"--query={part}=select * from {name}" for part, name in NAMES.items()]
    given = {
        "csv": ["ratings.csv", "movies.csv"],
        "sqlite": ["shop.sqlite"],
        "duckdb": ["duckdb:///shop.duckdb"],
        "tables": [server],
        "queries": [server, *queries],
        "s3": [f"s3://same/{tmp_path.name}/ratings/*.parquet", "--items", f"s3://same/{tmp_path.name}/movies/"],
    }
    found = {}
    for name, arguments in given.items():
        code, out, err = call("init", *arguments)
        assert code == 0, err
        assert PASSWORD not in out + err and ("not written down" in err) == (server in arguments)
        config = json.loads(out)
        remote = name in ("tables", "queries", "s3")
        assert config["data"].get("allow_urls", False) == remote == ("you named an address" in err)
        found[name] = Dataset.from_sources(config).fingerprint()
    assert set(found.values()) == {found["csv"]}
    code, _, err = call("init", server.replace("reader:", "nobody:"))
    assert code == 2 and "refuses the connection" in err and PASSWORD not in err


def test_a_database_of_many_tables_needs_a_choice(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        for number in range(51):
            connection.execute(f"CREATE TABLE t{number} (a)")
    connection.close()
    code, _, err = call("init", tmp_path / "shop.db")
    assert code == 2 and "this database has 51 tables" in err and "--query" in err
