"""Feast: definitions for a dataset, and online features at inference, against a stub with recorded answers.

The answers have the shape that a feature server of Feast 0.67 gave (benchmarks/RESULTS.md, "Feast"): the ids first,
then the features in an order of its own, with a status for each value. An answer to a push is empty.
"""

import ast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast_stub import feast_server
from small import call, small_config, small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.errors import AnyrecError, ConfigError, DataError, InputError
from anyrec.data.feast.definitions import write_repository
from anyrec.data.feast.server import FeatureServer
from anyrec.data.feast.types import feast_names, feast_type
from anyrec.data.formats.write_json import write_json

RECORDED = {
    "results": [
        {
            "values": [9007199254740993, 9007199254741003, 77],
            "statuses": ["PRESENT", "PRESENT", "PRESENT"],
            "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"],
        },
        {
            "values": [73.0, None, None],
            "statuses": ["PRESENT", "PRESENT", "NOT_FOUND"],
            "event_timestamps": ["2026-11-27T13:40:26Z", "2026-11-27T13:40:26Z", "1970-01-01T00:00:00Z"],
        },
        {
            "values": ["clerk", "nurse", None],
            "statuses": ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
            "event_timestamps": ["2026-11-27T13:40:26Z", "2026-11-27T13:40:26Z", "1970-01-01T00:00:00Z"],
        },
        {
            "values": [[1704067200], [], None],
            "statuses": ["PRESENT", "PRESENT", "NOT_FOUND"],
            "event_timestamps": ["2026-11-27T13:40:26Z", "2026-11-27T13:40:26Z", "1970-01-01T00:00:00Z"],
        },
    ],
    "metadata": {"feature_names": ["user_id", "continuous_age", "categorical_job", "temporal_seen"]},
}


@pytest.fixture
def server():
    with feast_server() as stub:
        yield stub


@pytest.fixture(scope="module")
def recommender():
    config = small_config(training={"epochs": 1, "batch_size": 128, "patience": None})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


def online(recommender, server, **options):
    return recommender.with_config({"feast": {"url": server.url, **options}})


def vectors(table):
    return np.stack(table["embedding"].to_numpy(zero_copy_only=False))


# Online features


def test_a_recorded_answer_becomes_columns_of_the_dataset(server):
    server.answer = RECORDED
    kinds = {
        "categorical.job": pa.string(),
        "continuous.age": pa.float64(),
        "temporal.seen": pa.list_(pa.timestamp("us", "UTC")),
    }
    ids = pa.array([9007199254740993, 9007199254741003, 77])
    found = FeatureServer(server.url).online_features("user_features", ids, kinds)
    assert found.schema.types == list(kinds.values()) and found.column_names == list(kinds)
    assert found["categorical.job"].to_pylist() == ["clerk", None, None]
    assert found["continuous.age"].to_pylist() == [73.0, None, None]
    seen = found["temporal.seen"].to_pylist()
    assert [one.isoformat() for one in seen[0]] == ["2024-01-01T00:00:00+00:00"] and seen[1:] == [[], None]
    (path, asked, _), *_ = server.asked
    assert path == "/get-online-features" and asked["entities"] == {"user_id": ids.to_pylist()}
    assert asked["features"][0] == "user_features:categorical_job"


def test_an_answer_for_other_ids_is_refused(server):
    server.answer = RECORDED
    with pytest.raises(AnyrecError, match="not those of the request"):
        ids = pa.array([9007199254740992, 9007199254741003, 77])
        FeatureServer(server.url).online_features("user_features", ids, {"continuous.age": pa.float64()})


def test_online_features_replace_those_of_the_training_and_a_request_replaces_both(recommender, server):
    server.values = {"u001": {"categorical_job": "pilot", "continuous_age": 21.0}}
    feast = online(recommender, server)
    expected = recommender.embed_users(
        [{"user_id": "u001", "categorical": {"job": "pilot"}, "continuous": {"age": 21}}]
    )
    np.testing.assert_array_equal(vectors(feast.embed_users(["u001"])), vectors(expected))
    own = {"user_id": "u001", "categorical": {"job": "baker"}}
    expected = recommender.embed_users([{**own, "continuous": {"age": 21}}])
    np.testing.assert_array_equal(vectors(feast.embed_users([own])), vectors(expected))
    assert feast.search(text="thing", user="u001", k=3).num_rows == 3
    assert len(server.asked) == 3


def test_missing_values_are_masks(recommender, server):
    server.values = {"new": {"categorical_job": "pilot"}}
    feast = online(recommender, server)
    expected = recommender.embed_users([{"user_id": "new", "categorical": {"job": "pilot"}}])
    np.testing.assert_array_equal(vectors(feast.embed_users(["new"])), vectors(expected))
    np.testing.assert_array_equal(vectors(feast.embed_users(["u005"])), vectors(recommender.embed_users(["u005"])))
    with pytest.raises(DataError, match="neither the model nor Feast knows 1 users: 'nobody'"):
        feast.recommend(["u001", "nobody"])


def test_only_the_named_features_of_the_named_view_are_fetched(recommender, server):
    feast = online(recommender, server, features=["continuous.age"], view="people")
    feast.recommend(["u001", "u002"], 3)
    assert server.asked[0][1] == {"features": ["people:continuous_age"], "entities": {"user_id": ["u001", "u002"]}}
    with pytest.raises(InputError, match=r"categorical\.job"):
        online(recommender, server, features=["categorical.jobs"]).recommend(["u001"])


def test_a_late_server_masks_the_features_with_a_warning_or_refuses(recommender, server, caplog):
    server.answer_now.clear()  # it answers nothing before the test has ended
    feast = online(recommender, server, timeout_seconds=0.1)
    found = feast.recommend(["u001"], 5)
    assert len(server.asked) == 1 and server.answered == 0
    assert found.equals(recommender.recommend(["u001"], 5))
    assert "online features of 1 users are missing" in caplog.text and "took more than 0.1 s" in caplog.text
    with pytest.raises(DataError, match="no such user"):
        feast.recommend(["nobody"])
    refusing = online(recommender, server, timeout_seconds=0.1, on_error="refuse")
    with pytest.raises(InputError, match=r"took more than 0\.1 s"):
        refusing.recommend(["u001"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 404}, "status 404"),
        ({"answer": ["no features"]}, "not one of features"),
        ({"answer": {"results": [], "metadata": {"feature_names": ["user_id"]}}}, "not one of features"),
        ({"values": {"u001": {"continuous_age": "old"}}}, r"'continuous\.age' are not double"),
    ],
)
def test_an_invalid_answer_names_its_fault(recommender, server, change, said):
    vars(server).update(change)
    with pytest.raises(InputError, match=said):
        online(recommender, server, on_error="refuse").recommend(["u001"])


def test_the_token_is_in_the_environment(recommender, server, monkeypatch):
    feast = online(recommender, server, token_env="FEAST_TOKEN")
    with pytest.raises(ConfigError, match="FEAST_TOKEN is not set"):
        feast.recommend(["u001"])
    monkeypatch.setenv("FEAST_TOKEN", "secret")
    feast.recommend(["u001"])
    assert server.asked[-1][2] == "Bearer secret"


def test_nothing_is_fetched_for_everyone_for_models_without_features_and_for_untrusted_models(
    recommender, server, tmp_path
):
    online(recommender, server).recommend(k=2)
    ease = Recommender.from_config({"model": {"type": "ease"}, "feast": {"url": server.url}})
    ease.fit(small_dataset(), progress=False).recommend(["u001"], 2)
    folder = online(recommender, server).save(tmp_path / "model")
    loaded = Recommender.load(folder)
    loaded.recommend(["u001"], 2)
    assert loaded.config.feast.url is None and any("feast.url" in note for note in loaded.notes)
    assert not server.asked
    Recommender.load(folder, trust_plugins=True).recommend(["u001"], 2)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["localhost:6566", "ftp://host", "http://", "http://host:99999"])
def test_an_address_that_is_none_is_refused(recommender, url):
    with pytest.raises(ConfigError, match=r"http://"):
        recommender.with_config({"feast": {"url": url}})


# Embeddings


def test_embeddings_are_pushed_in_batches(recommender, server, tmp_path, monkeypatch):
    monkeypatch.setattr("anyrec.data.feast.server.IDS", 25)
    folder = recommender.save(tmp_path / "model")
    code, _, message = call("feast", "push", "--model-path", folder, "--url", server.url)
    assert code == 0, message
    pushed = {}
    for path, asked, _ in server.asked:
        assert path == "/push" and asked["to"] == "online" and len(asked["df"]["event_timestamp"]) <= 25
        side = asked["push_source_name"].split("_")[0]
        pushed.setdefault(side, {}).update(zip(asked["df"][f"{side}_id"], asked["df"]["embedding"], strict=True))
    for side in ("user", "item"):
        assert list(pushed[side]) == recommender.dataset.ids(side).to_pylist()
        np.testing.assert_array_equal(np.float32(list(pushed[side].values())), recommender.model.embeddings(side))
    code, _, message = call("feast", "push", "--model-path", folder, "--url", "feast", "--side", "users")
    assert code == 2 and "--url" in message and "--side" in message


# Definitions


def test_the_definitions_name_every_feature_with_its_type(tmp_path):
    data = small_dataset()
    (tmp_path / "data").mkdir()
    write_json(data, tmp_path / "data.json")
    repository = tmp_path / "repo"
    code, _, message = call(
        "feast", "generate", "--data", tmp_path / "data.json", "--output", repository, "--project", "shop"
    )
    assert code == 0 and "feast apply" in message, message
    text = (repository / "definitions.py").read_text()
    ast.parse(text)
    for line in (
        'Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)',
        'Field(name="categorical_job", dtype=String)',
        'Field(name="continuous_age", dtype=Float64)',
        'Field(name="temporal_spending", dtype=Array(Float64))',
        'Field(name="categorical_tags", dtype=Array(String))',
        'Field(name="temporal_restocked", dtype=Array(UnixTimestamp))',
        "from feast.types import Array, Float32, Float64, String, UnixTimestamp",
        'FeatureService(name="anyrec", features=[user_features, item_features])',
    ):
        assert line in text
    assert "project: shop" in (repository / "feature_store.yaml").read_text()
    users = pq.read_table(repository / "data" / "users.parquet")
    assert users["continuous_age"].combine_chunks().equals(data.users["continuous.age"].combine_chunks())
    assert users["event_timestamp"].null_count == 0 and users["event_timestamp"][0].as_py().microsecond == 0
    assert pq.read_table(repository / "data" / "item_embeddings.parquet").num_rows == 0


def test_a_second_generation_keeps_the_store_and_the_embeddings(tmp_path):
    data = small_dataset()
    write_repository(data, tmp_path, "shop")
    (tmp_path / "feature_store.yaml").write_text("project: mine\n")
    embeddings = pa.table({"user_id": ["u001"], "embedding": [[1.0]]})
    pq.write_table(embeddings, tmp_path / "data" / "user_embeddings.parquet")
    write_repository(data, tmp_path, "shop", days=7)
    assert (tmp_path / "feature_store.yaml").read_text() == "project: mine\n"
    assert pq.read_table(tmp_path / "data" / "user_embeddings.parquet").num_rows == 1
    assert "timedelta(days=7)" in (tmp_path / "definitions.py").read_text()


def test_names_that_are_equal_in_feast_are_refused_and_types_that_it_lacks_are_noted(tmp_path):
    assert feast_names(["categorical.job", "text.a-b"]) == {
        "categorical.job": "categorical_job",
        "text.a-b": "text_a_b",
    }
    with pytest.raises(DataError, match=r"text\.a-b, text\.a_b"):
        feast_names(["text.a-b", "text.a_b"])
    assert feast_type(pa.list_(pa.list_(pa.string()))) is None and feast_type(pa.int64()) == "Int64"
    data = small_dataset()
    nested = pa.array([{"x": 1}] * len(data.users))
    wider = Dataset(data.users.append_column("sensor.state", nested), data.items, data.interactions)
    notes = write_repository(wider, tmp_path, "shop")
    assert len(notes) == 1 and "sensor.state" in notes[0]


def test_a_side_without_features_has_embeddings_only_and_a_bad_project_is_refused(tmp_path):
    data = small_dataset()
    write_json(data, tmp_path / "data.json")
    code, _, message = call("feast", "generate", "--data", tmp_path / "data.json", "--project", "my shop")
    assert code == 2 and "--project" in message
    bare = Dataset(data.users.select(["user_id"]), data.items, data.interactions)
    write_repository(bare, tmp_path / "repo", "shop")
    text = (tmp_path / "repo" / "definitions.py").read_text()
    ast.parse(text)
    assert "features=[item_features]" in text and "user_features" not in text and "user_embeddings = " in text
    with pytest.raises(DataError, match="neither users nor items have features"):
        write_repository(Dataset(bare.users, data.items.select(["item_id"]), data.interactions), tmp_path / "x", "shop")
