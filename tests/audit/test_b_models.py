"""Rows B1 to B9 and B12 of the promised features: architectures. B10 and B11 have no test yet."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest
from audited import ask, run
from small import small_config

from anyrec import Dataset, Recommender, create_index
from anyrec.core.config import DataConfig

LAST = {"split": {"protocol": "leave_last_out"}, "evaluation": {"baselines": ["popularity"]}, "blend": None}


def part_of(path, users=80):
    return Dataset.read(path, DataConfig(max_users=users))


def fit(path, users=80, **changes):
    config = small_config(**{**LAST, **changes})
    return Recommender.from_config(config).fit(part_of(path, users), progress=False)


def written(path, config):
    path.write_text(json.dumps(small_config(**{**LAST, **config})))
    return path


def test_b1_two_towers_with_three_losses_item_vectors_ahead_of_time_and_scores_in_batches(films, tmp_path):
    for loss in ("infonce", "bpr", "bce"):
        config = written(tmp_path / f"{loss}.json", {"name": loss, "loss": {"type": loss}, "data": {"max_users": 80}})
        run("train", "--data", films, "--config", config, "--output_dir", tmp_path)
    run("embed", "--model_path", tmp_path / "bpr", "--output", tmp_path / "vectors")
    users, items = (pq.read_table(tmp_path / "vectors" / f"{side}.parquet") for side in ("users", "items"))
    model = Recommender.load(tmp_path / "bpr")
    listed = model.recommend(None, 5, exclude_seen=False)
    assert len(listed) == 5 * 80, "one batch of all users"
    first = {row["user_id"]: row for row in listed.to_pylist() if row["rank"] == 1}
    vectors = {row["item_id"]: np.array(row["embedding"]) for row in items.to_pylist()}
    for row in users.to_pylist()[:5]:
        best = max(vectors, key=lambda item: vectors[item] @ np.array(row["embedding"]))
        assert best == first[row["user_id"]]["item_id"], "the vectors alone give the same list"
    run("recommend", "--model_path", tmp_path / "bpr", "--all", "--output", tmp_path / "lists.parquet", "--k", 5)
    assert pq.read_table(tmp_path / "lists.parquet").num_rows == 400


@pytest.mark.parametrize("block", ["causal", "bidirectional"])
def test_b2_sequences_by_a_causal_and_a_bidirectional_transformer_also_for_a_session(block, films):
    history = {"window": 20, "layers": 1, **({"block": block} if block != "causal" else {})}
    fitted = fit(
        films, features={"history": history}, loss={"type": "full_softmax"}, user={"features": {"identity": None}}
    )
    items = fitted.dataset.ids("item").to_pylist()
    sessions = {"short": items[:1], "long": items[1:40]}
    rows = [
        {"user_id": name, "item_id": item, "timestamp": 900_000_000 + n}
        for name, session in sessions.items()
        for n, item in enumerate(session)
    ]
    lists = fitted.recommend([{"user_id": name} for name in sessions], 5, interactions=rows)
    found = {name: [row["item_id"] for row in lists.to_pylist() if row["user_id"] == name] for name in sessions}
    assert len(found["short"]) == len(found["long"]) == 5 and found["short"] != found["long"]
    assert not set(found["long"]) & set(sessions["long"])


def test_b3_a_graph_of_users_and_items_in_a_tower(films, tmp_path):
    features = {"identity": {"graph_layers": 2}, "text": None, "categorical": None, "continuous": None}
    config = {"name": "graph", "features": features, "fusion": {"type": "identity"}, "data": {"max_users": 80}}
    run("train", "--data", films, "--config", written(tmp_path / "c.json", config), "--output_dir", tmp_path)
    model = Recommender.load(tmp_path / "graph")
    assert len(model.recommend(None, 3)) == 240
    assert fit(films, **{k: v for k, v in config.items() if k not in ("data", "name")}).metrics["test"]["ndcg@10"] >= 0


@pytest.mark.parametrize("ranker", ["dcn", "deepfm", "dlrm"])
def test_b4_rankers_with_crosses_over_features_of_users_and_items(ranker, films):
    pipeline = {"retrieve": {"k": 60}, "rank": {"type": ranker, "k": 20, "training": {"epochs": 1}}}
    fitted = fit(films, pipeline=pipeline)
    assert fitted.pipeline.ranker.interaction.type == ranker
    answer = fitted.answer(fitted.dataset.ids("user")[:3].to_pylist(), 5)
    assert len(answer.table) == 15 and "rank" in answer.latency


INDEXES = [("exact", None), ("usearch", None), ("annoy", None), ("qdrant", None)]
INDEXES += [("faiss", kind) for kind in ("flat", "hnsw", "ivf", "ivf_pq")]


@pytest.mark.parametrize(("backend", "kind"), INDEXES, ids=lambda one: str(one))
@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_b5_indexes_behind_one_interface(backend, kind, metric, shop_model, tmp_path):
    if backend == "annoy":
        pytest.importorskip("annoy")
    vectors = np.array(shop_model.embed_items()["embedding"].to_pylist(), np.float32)
    vectors = np.concatenate(
        [vectors, np.random.default_rng(0).normal(size=(600, vectors.shape[1])).astype(np.float32)]
    )
    options = {"m": 4} if kind == "ivf_pq" else {}
    index = create_index(backend, vectors.shape[1], metric, kind, options=options)
    index.build(vectors[:-1])
    index.add(np.array([5000]), vectors[-1:])
    scores = vectors @ vectors[:20].T
    if metric == "cosine":
        scores = scores / np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = np.where(np.arange(len(vectors)) == len(vectors) - 1, 5000, np.arange(len(vectors)))
    wanted = keys[np.argsort(-scores, axis=0)[:10].T]
    found, _ = index.search(vectors[:20], 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])
    assert recall > 0.85, recall
    first = int(found[0, 0])
    index.remove(np.array([first]))
    assert first not in index.search(vectors[:1], 10)[0]
    index.save(tmp_path / "index")
    again = create_index(backend, vectors.shape[1], metric, kind, options=options)
    again.load(tmp_path / "index")
    assert again.search(vectors[:3], 5)[0].tolist() == index.search(vectors[:3], 5)[0].tolist()


def test_b5_the_command_chooses_an_index_by_its_recall_and_lists_name_it(shop_run, tmp_path):
    import shutil

    copy = tmp_path / "shop"
    shutil.copytree(shop_run, copy)
    shown = run("index", "--model_path", copy, "--recall", 0.95)
    assert "recall" in shown and "exact" in shown
    found = ask(
        "recommend", "--model_path", copy, "--user_id", "user3", "--set", 'index={"type": "faiss", "kind": "hnsw"}'
    )
    assert found["index"]["type"] == "faiss"
    plain = ask("recommend", "--model_path", shop_run, "--user_id", "user3")
    lists = [[row["item_id"] for row in one["users"][0]["recommendations"]] for one in (found, plain)]
    assert len(set(lists[0]) & set(lists[1])) >= 9
    bits = create_index("usearch", 16, "dot", options={"dtype": "i8"})
    bits.build(np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32))
    assert bits.search(np.ones((1, 16), np.float32), 5)[0].shape == (1, 5)


PIPELINE = {
    "retrieve": {
        "k": 50,
        "sources": [{"type": "model"}, {"type": "popularity", "k": 10}, {"type": "item_to_item", "k": 10}],
    },
    "rank": {"type": "mlp", "k": 20, "training": {"epochs": 1}},
    "rerank": {
        "rules": [
            {"type": "diversity", "method": "mmr", "relevance": 0.8},
            {"type": "diversity", "method": "max_per_category", "feature": "item.categorical.category", "max": 4},
        ]
    },
}


@pytest.fixture(scope="module")
def staged(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    config = written(folder / "c.json", {"name": "staged", "pipeline": PIPELINE, "features": {"image": None}})
    run("train", "--data", shop, "--config", config, "--output_dir", folder)
    return folder / "staged"


def test_b6_retrieval_ranking_and_reranking_with_the_time_of_each_stage(staged):
    found = ask("recommend", "--model_path", staged, "--user_id", "user3", "--k", 10, "--trace")
    text = json.dumps(found)
    assert len(found["users"][0]["recommendations"]) == 10
    for stage in ("retrieve", "rank", "rerank"):
        assert stage in text, text[:600]
    answer = Recommender.load(staged).answer(["user3"], 10)
    assert all(value >= 0 for value in answer.latency.values()) and len(answer.latency) >= 3
    assert "popularity" in text, "the trace names the sources"


def test_b7_rules_for_diversity_freshness_business_exploration_and_a_hook(shop_run, shop_model, tmp_path):
    items = {row["item_id"]: row for row in shop_model.dataset.items.to_pylist()}

    def listed(*rules, k=10):
        config = tmp_path / "rules.json"
        config.write_text(json.dumps({"pipeline": {"rerank": {"rules": list(rules)}}}))
        options = ("--config", config, "--user_id", "user3", "--k", k, "--now", "2025-01-01", "--trust-plugins")
        found = ask("recommend", "--model_path", shop_run, *options)["users"][0]["recommendations"]
        return [row["item_id"] for row in found]

    plain, category = listed(), "item.categorical.category"
    spread = listed({"type": "diversity", "method": "max_per_category", "feature": category, "max": 2})
    counts = [items[item]["categorical.category"] for item in spread]
    assert all(counts.count(one) <= 2 for one in set(counts) - {None})
    assert listed({"type": "diversity", "method": "mmr", "relevance": 0.3}) != plain
    cheap = listed({"type": "where", "where": {"item.continuous.price": {"lt": 40}}})
    assert all(items[item]["continuous.price"] < 40 for item in cheap) and len(cheap) == 10
    assert listed({"type": "pin", "items": [{"item": plain[6], "position": 2}]})[1] == plain[6]
    explored = listed(
        {"type": "explore", "method": "epsilon_greedy", "epsilon": 1.0, "positions": [1, 2, 3], "pool": 40}
    )
    assert len(set(explored)) == 10

    class Cheapest(BaseHTTPRequestHandler):
        def do_POST(self):
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            orders = [[one["item_id"] for one in reversed(request["items"])] for request in document["requests"]]
            body = json.dumps({"orders": orders}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Cheapest)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/rerank"
        assert listed({"type": "http", "url": url, "candidates": 10}) == plain[::-1]
    finally:
        server.shutdown()
        server.server_close()


def test_b7_freshness_prefers_new_items(tmp_path):
    from anyrec import FreshnessRule, apply_rules

    items = [{"item_id": n, "temporal": {"released": [f"2024-{n + 1:02d}-01"]}} for n in range(6)]
    lists = [{"user_id": "ann", "item_id": n, "score": 1.0} for n in range(6)]
    rule = FreshnessRule(feature="item.temporal.released", half_life_days=10)
    table = apply_rules(lists, items, rules=[rule], now=1_719_000_000_000_000)
    assert table["item_id"].to_pylist()[0] == 5


@pytest.mark.parametrize("fusion", ["simple", "attention", "weighted", "gated", "bilinear"])
def test_b8_a_mask_of_each_row_hides_missing_modalities_in_every_fusion(fusion, shop):
    fitted = fit(shop, fusion={"type": fusion}, features={"image": None}, training={"epochs": 1, "patience": None})
    known = {"user_id": "a", "continuous": {"age": 40}}
    alone = fitted.embed_users([known])["embedding"].to_pylist()
    rows = [known, {"user_id": "b", "continuous": {"age": 40}, "categorical": {"occupation": "chef"}}, {"user_id": "c"}]
    batch = fitted.embed_users(rows)["embedding"].to_pylist()
    np.testing.assert_allclose(batch[0], alone[0], atol=1e-5)
    assert not np.allclose(batch[0], batch[1]) and not np.allclose(batch[0], batch[2])
    assert np.isfinite(batch).all()


def test_b9_users_items_and_interactions_are_added_without_training(shop_run, shop_model, tmp_path):
    news = {
        "user_data": [{"user_id": "newcomer", "categorical": {"occupation": "chef"}}],
        "item_data": [{"item_id": "novelty", "text": {"title": "A pan"}, "continuous": {"price": 20}}],
        "interactions": [{"user_id": "newcomer", "item_id": "item3", "timestamp": "2025-01-01"}],
    }
    (tmp_path / "news.json").write_text(json.dumps(news))
    run("add", "--model_path", shop_run, "--data", tmp_path / "news.json", "--output", tmp_path / "wider")
    wider = Recommender.load(tmp_path / "wider")
    listed = wider.recommend(["newcomer"], 61)["item_id"].to_pylist()
    assert "novelty" in listed and "item3" not in listed
    again = shop_model.add_items(news["item_data"]).add_users(news["user_data"], interactions=news["interactions"])
    assert again.recommend(["newcomer"], 10)["item_id"].to_pylist() == listed[:10]
    assert "newcomer" not in shop_model.dataset.ids("user").to_pylist(), "the model itself is not changed"


CLASSICAL = ["ials", "bpr_mf", "svd", "item_knn", "ease", "content_knn", "popularity"]


@pytest.mark.parametrize("name", CLASSICAL)
def test_b12_classical_models_fit_save_recommend_and_are_evaluated_like_any_other(name, films, tmp_path):
    if name in ("ials", "bpr_mf"):
        pytest.importorskip("implicit")
    path = tmp_path / "c.json"
    shared = {key: value for key, value in LAST.items() if key != "blend"}
    path.write_text(json.dumps({"name": name, "model": {"type": name}, "data": {"max_users": 80}, **shared}))
    run("train", "--data", films, "--config", path, "--output_dir", tmp_path)
    model = Recommender.load(tmp_path / name)
    assert model.metrics["test"]["ndcg@10"] >= 0 and len(model.recommend([1, 2], 5)) == 10
    if name in ("ials", "bpr_mf", "svd"):
        assert len(model.embed_items()["embedding"][0]) == len(model.embed_users([1])["embedding"][0])
        wider = model.add_users([{"user_id": 10**6}], interactions=[{"user_id": 10**6, "item_id": 50}])
        assert len(wider.recommend([10**6], 5)) == 5
