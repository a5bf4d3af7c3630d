"""Vector databases: what a search there finds is what the model's exact index finds, with ids as they are."""

import json
import re
import shlex
import zlib
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from databases import PASSWORD, postgresql_server
from small import call, small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, InputError
from anyrec.retrieval.vector_database import database_at

FIELDS = ["categorical.tags", "continuous.price", "temporal.restocked"]
IDS = {
    "text": [f"i{n:03d}" for n in range(38)] + ["é/'\"\\\n", "7"],
    "whole": [2**63 - 1, 2**53 + 1, -5, 0, *range(1, 37)],
}
SERVERS = ("qdrant", "milvus", "pgvector")


def recommender_of(ids, items=40):
    """A factorisation of the small data set, with these item ids."""
    data = small_dataset(items=items)
    ids = sorted(ids)[:items]
    names = dict(zip(data.items.column("item_id").to_pylist(), ids, strict=True))
    renamed = [
        pa.array([names[one] for one in table.column("item_id").to_pylist()])
        for table in (data.items, data.interactions)
    ]
    tables = [
        table.set_column(table.column_names.index("item_id"), "item_id", column)
        for table, column in zip((data.items, data.interactions), renamed, strict=True)
    ]
    config = {"model": {"type": "ials", "factors": 8, "iterations": 3}}
    return Recommender.from_config(config).fit(Dataset(data.users, *tables, roles=data.roles), progress=False)


@pytest.fixture(scope="module")
def models():
    return {name: recommender_of(ids) for name, ids in IDS.items()}


@pytest.fixture(scope="module")
def post():
    """The address of a PostgreSQL server with pgvector, without its password."""
    psycopg = pytest.importorskip("psycopg", reason="pip install 'anyrec[pgvector]'")
    pytest.importorskip("pgvector", reason="pip install 'anyrec[pgvector]'")
    with postgresql_server() as address:
        with psycopg.connect(address.replace(PASSWORD, quote(PASSWORD, safe=""))) as connection:
            if not connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
                pytest.skip("pgvector is not installed (apt-get install postgresql-15-pgvector)")
        yield address.replace(f":{PASSWORD}", "")


@pytest.fixture(params=SERVERS)
def address(request, tmp_path, monkeypatch):
    """Returns the address of a collection in a database of its own."""
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="pip install 'anyrec[milvus]'")
        return lambda name: f"milvus:{tmp_path}/shop.db/{name}"
    if request.param == "pgvector":
        server, test = request.getfixturevalue("post"), zlib.crc32(request.node.name.encode())
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        return lambda name: f"{server}/t{test}_{name}"
    qdrant = pytest.importorskip("qdrant_client", reason="pip install 'anyrec[qdrant]'")
    local = qdrant.QdrantClient(":memory:")
    local.close = lambda: None  # a server goes on
    monkeypatch.setattr(qdrant, "QdrantClient", lambda **_: local)
    return lambda name: f"qdrant://localhost:6333/{name}"


def opened(address, recommender):
    """The database, to look at its content."""
    database = database_at(address, discover())
    database.open(recommender.dataset.ids("item").type, 8)
    return database


def nearest(recommender, user, k):
    """The ids and scores of the k nearest items by every dot product."""
    model = recommender.model
    scores = model.embeddings("item") @ model.embeddings("user")[user]
    order = np.argsort(-scores)[:k]
    return model.dataset.ids("item").take(pa.array(order)).to_pylist(), scores[order]


@pytest.mark.parametrize("ids", IDS)
def test_a_search_in_the_database_finds_what_the_exact_index_finds(address, models, ids):
    recommender = models[ids]
    done = recommender.push_items(address("items"), fields=FIELDS, batch_size=7, progress=False)
    assert (done.items, done.removed, done.others, done.recall) == (40, 0, 0, 1.0)
    database = opened(address("items"), recommender)
    assert sorted(one for page in database.stored() for one in page) == sorted(IDS[ids])
    for user in range(5):
        expected, scores = nearest(recommender, user, 10)
        found = database.search(recommender.model.embeddings("user")[user], 10)
        assert [item for item, _ in found] == expected
        assert [type(item) for item, _ in found] == [type(expected[0])] * 10
        np.testing.assert_allclose([score for _, score in found], scores, rtol=1e-4, atol=1e-6)
    database.close()


def test_a_second_push_changes_nothing_and_stale_items_stay_until_they_are_removed(address, models, caplog):
    many, few = models["text"], recommender_of(IDS["text"], items=30)
    for _ in range(2):
        many.push_items(address("items"), progress=False)
    done = few.push_items(address("items"), progress=False)
    assert (done.items, done.others, done.removed) == (30, 10, 0) and done.recall == 1.0
    assert "10 other ids" in caplog.text
    done = few.push_items(address("items"), remove_stale=True, progress=False)
    assert (done.others, done.removed, done.recall) == (0, 10, 1.0)
    database = opened(address("items"), few)
    assert sorted(one for page in database.stored() for one in page) == few.dataset.ids("item").to_pylist()
    database.close()


def test_a_collection_of_other_vectors_or_ids_is_refused(address, models):
    models["text"].push_items(address("items"), progress=False)
    with pytest.raises(InputError, match=r"ids|item_id"):
        models["whole"].push_items(address("items"), progress=False)
    wider = Recommender.from_config({"model": {"type": "ials", "factors": 9, "iterations": 1}})
    with pytest.raises(InputError, match="9"):
        wider.fit(small_dataset(), progress=False).push_items(address("items"), progress=False)


def test_features_are_stored_as_in_a_json_record(address, models):
    models["text"].push_items(address("items"), fields=FIELDS, progress=False)
    items = models["text"].dataset.items
    database = opened(address("items"), models["text"])
    if database.type == "qdrant":
        points, _ = database._client.scroll("items", limit=100)
        records = {point.payload.pop("item_id"): point.payload for point in points}
    elif database.type == "milvus":
        rows = database._client.query("items", filter='item_id != ""', output_fields=["*"])
        records = {row["item_id"]: {k: v for k, v in row.items() if k not in ("item_id", "vector")} for row in rows}
    else:
        records = dict(database._run("SELECT item_id, record FROM {table}"))
    for row in items.to_pylist():
        record = records[row["item_id"]]
        assert record["categorical"] == {"tags": row["categorical.tags"]}
        assert record.get("continuous", {}).get("price") == row["continuous.price"]
        assert record["temporal"]["restocked"] == [f"{one:%Y-%m-%dT%H:%M:%S}Z" for one in row["temporal.restocked"]]
    assert json.dumps(records)
    database.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("redis://host/items", "no database has the scheme 'redis'"),
        ("qdrant", "no address of a database"),
        ("qdrant://host:6333", "names no collection"),
        ("qdrant://host/my items", "'my items' is no name"),
        ("postgresql://me:secret@host/shop/items", "must not have a password"),
        ("qdrant://host/items?tls=maybe", "tls"),
        ("qdrant://host/items?tsl=true", "tls"),
        ("milvus:shop.sqlite/items", "ends in .db"),
        ("qdrant://127.0.0.1:1/items?timeout=1", "qdrant cannot be used"),
        ("postgresql://127.0.0.1:1/shop/items?timeout=1", "pgvector cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used_says_why_and_hides_secrets(address, message, models):
    with pytest.raises((ConfigError, InputError), match=message) as raised:
        models["text"].push_items(address, progress=False)
    assert "secret" not in str(raised.value)


def test_unknown_features_and_models_without_dot_products_are_refused(models):
    with pytest.raises(ConfigError, match=r"categorical\.tags"):
        models["text"].push_items("qdrant://host/items", fields=["categorical.tag", "continuous.price"])
    ease = Recommender.from_config({"model": {"type": "ease"}}).fit(small_dataset(), progress=False)
    with pytest.raises(ConfigError, match="dot product"):
        ease.push_items("qdrant://host/items")


def test_the_command_pushes_and_refuses_options_of_the_other_use(models, tmp_path):
    pytest.importorskip("milvus_lite", reason="pip install 'anyrec[milvus]'")
    folder = models["text"].save(tmp_path / "model")
    place = f"milvus:{tmp_path}/shop.db/items"
    code, out, message = call("index", "--model-path", folder, "--push", place, "--field", "categorical.tags")
    assert code == 0, message
    assert "40 items" in out and "recall@10 1.000" in out
    code, _, message = call("index", "--model-path", folder, "--push", place, "--type", "exact", "--recall", "0.9")
    assert code == 2 and "--type" in message and "--recall" in message
    code, _, message = call("index", "--model-path", folder, "--remove-stale", "--field", "text.title")
    assert code == 2 and "--remove-stale" in message and "--field" in message


@pytest.mark.parametrize("form", ["parquet", "numpy", "faiss"])
@pytest.mark.parametrize("ids", IDS)
def test_embeddings_are_written_with_ids_of_their_type(models, tmp_path, form, ids):
    import faiss

    recommender = models[ids]
    folder = recommender.save(tmp_path / "model")
    code, _, message = call("embed", "--model-path", folder, "--output", tmp_path / "out", "--format", form)
    assert code == 0, message
    for side in ("user", "item"):
        table = pq.read_table(tmp_path / "out" / (f"{side}s.parquet" if form == "parquet" else f"{side}_ids.parquet"))
        assert table.column(f"{side}_id").combine_chunks().equals(recommender.dataset.ids(side))
        assert table.schema.metadata[b"model"]
        if form == "parquet":
            vectors = np.stack(table.column("embedding").to_numpy())
        elif form == "numpy":
            vectors = np.load(tmp_path / "out" / f"{side}s.npy", allow_pickle=False)
        else:
            index = faiss.read_index(str(tmp_path / "out" / f"{side}s.faiss"))
            vectors = index.reconstruct_n(0, index.ntotal)
            assert index.metric_type == faiss.METRIC_INNER_PRODUCT
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, recommender.model.embeddings(side))


def test_an_unknown_format_is_refused(models, tmp_path):
    folder = models["text"].save(tmp_path / "model")
    code, _, message = call("embed", "--model-path", folder, "--output", tmp_path / "out", "--format", "numpyy")
    assert code == 2 and "numpy" in message and not (tmp_path / "out").exists()


def test_the_examples_of_the_page_work_with_a_local_file(models, tmp_path, monkeypatch):
    """The commands and searches that need no server."""
    pymilvus = pytest.importorskip("pymilvus", reason="pip install 'anyrec[milvus]'")
    monkeypatch.chdir(tmp_path)
    models["text"].save("models/shop")
    page = (
        (ROOT / "docs" / "vector-databases.md").read_text(encoding="utf-8").replace("categorical.category", FIELDS[0])
    )
    page = page.replace('"category"', '"tags"').replace("book", "nurse")
    ran = 0
    for line in re.findall(r"^anyrec (.*)$", page, re.MULTILINE):
        if "://" not in line:
            code, _, message = call(*shlex.split(line))
            assert code == 0, message
            ran += 1
    assert ran == 4
    user_vectors = models["text"].model.embeddings("user")[:3].copy()
    names = {"recommender": models["text"], "np": np, "pq": pq, "faiss": pytest.importorskip("faiss")}
    names |= {"MilvusClient": pymilvus.MilvusClient, "user_vector": user_vectors[0], "user_vectors": user_vectors}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "QdrantClient" not in code:
            exec(compile(code, "page", "exec"), names)
    tags = dict(zip(*models["text"].dataset.items.select(["item_id", FIELDS[0]]).to_pydict().values(), strict=True))
    found = [one["item_id"] for one in names["found"]]
    assert len(found) >= 5 and all("nurse" in tags[item] for item in found)
    assert names["item_ids"].take(names["rows"][0]).to_pylist() == nearest(models["text"], 0, 10)[0]
