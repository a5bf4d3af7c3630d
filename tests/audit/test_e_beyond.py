"""Rows E1 to E10 of the promised features: what no other project has."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from audited import ask, run, settings
from forked import start_program
from small import call, small_config

from anyrec import Dataset, Recommender
from anyrec.core.config import DataConfig

ROOT = Path(__file__).parents[2]
LAST = {"split": {"protocol": "leave_last_out"}, "blend": None}


def few(path, **limits):
    return Dataset.read(path, DataConfig(**{"max_users": 80, **limits}))


def test_e1_baselines_next_to_the_model_on_the_same_split_with_intervals_and_a_plain_verdict(shop_run, films, tmp_path):
    found = json.loads((shop_run / "evaluation" / "evaluation.json").read_text())
    text = json.dumps(found)
    assert "popularity" in text and "item_knn" in text
    report = (shop_run / "report.md").read_text()
    assert "95%" in report and "Holm" in report
    options = settings(training__epochs=1, training__optimizer__learning_rate=1e-6, defaults="fixed", blend=None, dim=8)
    options += settings(evaluation__baselines=["popularity", "ease"], data__max_users=120, features__text=None)
    run("train", "--data", films, "--output_dir", tmp_path, "--set", "name=poor", *options)
    verdict = (tmp_path / "poor" / "report.md").read_text().split("\n\n")[1]
    assert "better" in verdict and ("ease" in verdict or "popularity" in verdict), verdict


def test_e2_missing_modalities_are_masked_in_training_and_inference(shop):
    data = few(shop)
    config = small_config(features={"image": None}, **LAST)
    config["training"]["epochs"] = 1
    fitted = Recommender.from_config(config).fit(data, progress=False)
    empty = fitted.embed_items([{"item_id": "bare"}])["embedding"].to_pylist()[0]
    rich = fitted.embed_items([{"item_id": "full", "text": {"title": "A pan"}, "continuous": {"price": 9.0}}])
    assert np.isfinite(empty).all() and rich["embedding"].to_pylist()[0] != empty
    nulls = {"item_id": "nulls", "text": {"title": None}, "continuous": {"price": None}, "categorical": None}
    np.testing.assert_allclose(fitted.embed_items([nulls])["embedding"].to_pylist()[0], empty, atol=1e-6)


def test_e3_no_positive_of_a_user_counts_as_a_negative_and_logq_has_the_right_sign(films, monkeypatch):
    from test_negatives import watch_sampler

    from anyrec.training import loop

    drawn, make = [], loop.make_objective

    def watched(*args):
        objective = make(*args)
        watch_sampler(objective.sampler, drawn)
        return objective

    monkeypatch.setattr(loop, "make_objective", watched)
    config = small_config(negatives={"type": "in_batch"}, loss={"type": "softmax"}, features={"text": None}, **LAST)
    fitted = Recommender.from_config(config).fit(few(films, max_users=30), progress=False)
    learning = fitted.model.learning
    rows = learning.positives(learning.split.train)
    had = set(zip(learning.dataset.user_rows[rows].tolist(), learning.dataset.item_rows[rows].tolist(), strict=True))
    assert not had & set(map(tuple, torch.cat(drawn).tolist()))
    # the correction by logQ is proven against the full softmax in tests/test_losses.py


def test_e4_every_metric_by_cold_warm_and_hot_slices(shop, shop_run):
    found = ask("evaluate", "--model_path", shop_run, "--data", shop, "--slices")
    text = json.dumps(found["slices"])
    assert "1-19" in text or "20+" in text
    assert any(one["metrics"] for one in found["slices"] if "metrics" in one)
    saved = json.loads((shop_run / "evaluation" / "evaluation.json").read_text())["slices"]
    metrics = next(iter(saved[0]["metrics"].values()))
    assert {"ndcg@10", "recall@10", "mrr@10"} <= set(metrics)
    assert "20+" in (shop_run / "report.md").read_text()


def test_e5_the_contribution_of_each_feature_is_measured(shop_run):
    found = json.loads((shop_run / "evaluation" / "evaluation.json").read_text())["feature_importance"]
    names = json.dumps(found)
    assert "occupation" in names and "views" in names
    assert "Feature importance" in (shop_run / "report.md").read_text()


def test_e6_a_run_killed_with_signal_9_resumes_bit_by_bit(films, tmp_path):
    options = settings(training__epochs=6, training__patience=None, defaults="fixed", blend=None, dim=16)
    options += settings(evaluation__baselines=[], data__max_users=60, features__text=None, training__batch_size=128)
    command = ("train", "--data", films, "--output_dir", tmp_path, "--set", "name=killed")
    process = start_program("-m", "anyrec", *command, *options)
    log = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline and process.is_alive() and not (log.exists() and log.read_text().count("\n") >= 2)
    ):
        time.sleep(0.01)
    process.kill()
    process.join()
    run("train", "--data", films, "--output_dir", tmp_path, "--set", "name=killed", *options, "--resume")
    run("train", "--data", films, "--output_dir", tmp_path, "--set", "name=whole", *options)
    one, two = (Recommender.load(tmp_path / name).embed_items() for name in ("killed", "whole"))
    assert one.equals(two)


@pytest.mark.parametrize("index", [{"type": "exact"}, {"type": "faiss", "kind": "hnsw"}, {"type": "usearch"}])
def test_e7_a_filter_leaves_exactly_k_items_if_there_are_k(index, shop_run, shop_model):
    allowed = [row["item_id"] for row in shop_model.dataset.items.to_pylist() if (row["continuous.price"] or 99) < 25]
    seen = set(shop_model.dataset.ids("item").to_pylist()) - set(
        shop_model.recommend(["user3"], 60)["item_id"].to_pylist()
    )
    k = len(set(allowed) - seen)
    assert 2 <= k < 30
    where = json.dumps({"item.continuous.price": {"lt": 25}})
    options = ("--user_id", "user3", "--where", where, "--k", k, "--set", f"index={json.dumps(index)}")
    found = ask("recommend", "--model_path", shop_run, *options)["users"][0]["recommendations"]
    assert {row["item_id"] for row in found} == set(allowed) - seen
    assert len(shop_model.recommend(["user3"], k, candidates=allowed)) == k


def test_e8_saved_and_served_scores_agree_with_training_and_nothing_is_pickled(films, tmp_path):
    config = small_config(features={"history": {"window": 10, "layers": 1}}, **LAST)
    config["training"]["epochs"] = 1
    fitted = Recommender.from_config(config).fit(few(films), progress=False)
    loaded = Recommender.load(fitted.save(tmp_path / "model"))
    one, two = (model.recommend(None, 20) for model in (fitted, loaded))
    assert one["item_id"].equals(two["item_id"])
    np.testing.assert_allclose(one["score"].to_numpy(), two["score"].to_numpy(), atol=1e-5)
    run("embed", "--model_path", tmp_path / "model", "--output", tmp_path / "vectors")
    import pyarrow.parquet as pq

    exported = np.array(pq.read_table(tmp_path / "vectors" / "items.parquet")["embedding"].to_pylist())
    np.testing.assert_allclose(exported, np.array(fitted.embed_items()["embedding"].to_pylist()), atol=1e-5)
    names = {file.suffix for file in (tmp_path / "model").rglob("*") if file.is_file()}
    assert names <= {".json", ".safetensors", ".arrow", ".md", ".npy", ".parquet", ""}


def test_e9_the_doctor_finds_suspicious_ids_leaks_duplicates_drift_and_dead_features(shop, tmp_path):
    document = json.loads(shop.read_text())
    users, items, rows = (document[key] for key in ("user_data", "item_data", "interactions"))
    names = {
        users[0]["user_id"]: "null",
        users[1]["user_id"]: "test_user",
        users[2]["user_id"]: f" {users[3]['user_id']}",
    }
    for row in [*users, *rows]:
        row["user_id"] = names.get(row["user_id"], row["user_id"])
    for n, item in enumerate(items):
        item.setdefault("categorical", {})["serial"] = f"S{n:05d}"
        item.setdefault("continuous", {})["always"] = 1.0
    copy = {**json.loads(json.dumps(items[5])), "item_id": "copy"}
    items.append(copy)
    rows.append({"user_id": users[5]["user_id"], "item_id": "copy", "timestamp": "2024-01-01"})
    rows += [dict(rows[0]) for _ in range(200)]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(document))
    code, out, message = call("doctor", path, "--no-images")
    text = " ".join((out + message).split())
    assert code == 0
    for part in (
        "'null' stands for a missing value",
        "'test_user' looks like a test",
        "with a space",
        "serial' are different",
    ):
        assert part in text, text
    assert "always" in text, "a feature that never changes"
    assert "twice" in text or "repeated" in text or "duplicate" in text or "same" in text
    assert "nothing to worry about" not in text


def test_e10_the_page_in_the_browser_shows_data_curves_and_recommendations_with_reasons(shop, shop_run, tmp_path):
    page = (shop_run / "report.html").read_text()
    assert "<svg" in page and "epoch" in page and page.lstrip().lower().startswith("<!doctype html>")
    request = tmp_path / "visitors.json"
    request.write_text(json.dumps({"user_data": [{"user_id": "new", "categorical": {"occupation": "chef"}}]}))
    found = ask("recommend", "--model_path", shop_run, "--data", request, "--k", 3, "--explain", "--json")
    assert "occupation" in json.dumps(found["users"][0]["recommendations"])
    assert "because" in run("recommend", "--model_path", shop_run, "--data", request, "--k", 3, "--explain", "--table")
