"""Rows D1 to D8 of the promised features: the two-tower engine with honest evaluation. D9 has no test yet."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from audited import ask, run, settings
from small import small_config

from anyrec import Dataset, Recommender
from anyrec.core.config import DataConfig

LAST = {"split": {"protocol": "leave_last_out"}, "blend": None}


def few(path, **limits):
    return Dataset.read(path, DataConfig(**{"max_users": 80, **limits}))


def test_d1_limits_and_minimum_interactions_until_stable_and_orphans_reported(films, tmp_path):
    limits = {"max_users": 100, "min_user_interactions": 10, "min_item_interactions": 5}
    data = few(films, **limits)
    counts = [np.bincount(data.rows(side), minlength=len(data.table(side))) for side in ("user", "item")]
    assert counts[0].min() >= 10 and counts[1].min() >= 5 and any("dropped" in note for note in data.notes)
    assert "interactions were dropped" in run_all(
        "validate", films, *settings(**{f"data__{k}": v for k, v in limits.items()})
    )
    document = json.loads(films.read_text())
    document["interactions"] += [{"user_id": 10**9, "item_id": 1}] * 3
    (tmp_path / "orphans.json").write_text(json.dumps(document))
    shown = run_all("validate", tmp_path / "orphans.json", "--set", "data.unknown_ids=drop")
    assert "3 interactions were dropped: no record has their user_id" in shown


def run_all(*arguments):
    """Run a command that must succeed, and return what it prints, notes included, on one line."""
    from small import call

    code, out, message = call(*arguments)
    assert code == 0, message
    return " ".join((out + message).split())


def test_d2_standardised_numbers_text_statistics_rare_categories_and_aggregates_without_leaks(films, shop, tmp_path):
    features = {
        "text": {"type": "text_statistics"},
        "categorical": {"max_categories": 3},
        "continuous": {"encoding": "linear"},
        "history": {"type": "aggregates"},
    }
    config = small_config(features=features, name="engineered", evaluation={"baselines": ["popularity"]}, **LAST)
    config["training"]["epochs"] = 1
    (tmp_path / "c.json").write_text(json.dumps(config))
    shown = run_all(
        "train",
        "--data",
        films,
        "--config",
        tmp_path / "c.json",
        "--output_dir",
        tmp_path,
        "--set",
        "data.max_users=80",
    )
    for part in ("text.title (text_statistics)", "categorical.occupation (categorical)", "(aggregates)"):
        assert part in shown
    model = Recommender.load(tmp_path / "engineered").model
    encoders = dict(zip(model.scorer.user.features, model.scorer.user.encoders, strict=True))
    ages, _ = encoders["continuous.age"].encode_column(few(films).users["continuous.age"].combine_chunks())
    assert abs(float(ages.float().mean())) < 0.5, "numbers are standardised"
    jobs = few(films).users["categorical.occupation"].combine_chunks()
    values, _ = encoders["categorical.occupation"].encode_column(jobs)
    flat = getattr(values, "values", values)
    assert len(set(flat.flatten().tolist())) <= 5, "three categories, and the rest together"
    loaded, items = Recommender.load(tmp_path / "engineered"), few(films).ids("item").to_pylist()
    new = [10**6, 10**6 + 1]
    people = [{"user_id": user, "continuous": {"age": 30}} for user in new]
    had = [{"user_id": user, "item_id": item} for user, item in zip(new, (items[0], items[400]), strict=True)]
    one, two = loaded.add_users(people, interactions=had).embed_users(new)["embedding"].to_pylist()
    assert one != two, "users differ by the items that they had"


@pytest.mark.parametrize("protocol", ["leave_last_out", "global_time", "random", "cold_users", "cold_items"])
def test_d3_every_way_to_hold_out_and_a_warning_without_timestamps(protocol, films, tmp_path):
    config = {"model": {"type": "popularity"}, "split": {"protocol": protocol}, "evaluation": {"baselines": []}}
    fitted = Recommender.from_config(config).fit(few(films), progress=False)
    split, data = fitted.split, fitted.dataset
    train, test = split.train, split.test
    assert len(train) and len(test) and not set(train.tolist()) & set(test.tolist())
    times, users, items = data.times, data.user_rows, data.item_rows
    if protocol == "leave_last_out":
        assert len(test) == len(set(users[test])), "one interaction of each user"
        latest = {user: times[users == user].max() for user in set(users[test])}
        assert all(times[row] == latest[users[row]] for row in test)
    elif protocol == "global_time":
        assert times[train].max() <= times[test].min()
    elif protocol in ("cold_users", "cold_items"):
        rows = users if protocol == "cold_users" else items
        assert not set(rows[train]) & set(rows[test])
    bare = Dataset.from_tables(data.users, data.items, data.interactions.drop_columns(["timestamp"]))
    if protocol == "leave_last_out":
        found = Recommender.from_config(config).fit(bare, progress=False)
        assert any("timestamp" in note or "order" in note for note in found.notes)


def test_d4_ranking_metrics_over_all_items_and_sampled_ones_labelled(films, tmp_path):
    options = settings(model__type="ease", evaluation__k=[5, 20], evaluation__baselines=[], data__max_users=80)
    run("train", "--data", films, "--output_dir", tmp_path, "--set", "name=full", *options)
    found = ask("evaluate", "--model_path", tmp_path / "full", "--data", films)
    for name in ("recall", "precision", "ndcg", "hit_rate", "map", "mrr"):
        assert 0 <= found[f"{name}@5"] <= 1 and f"{name}@20" in found
    model = Recommender.load(tmp_path / "full")
    assert model.metrics["test"]["ndcg@5"] == pytest.approx(found["ndcg@5"], abs=1e-6)
    sampled = run_all(
        "train",
        "--data",
        films,
        "--output_dir",
        tmp_path,
        "--set",
        "name=few",
        *options,
        *settings(evaluation__candidate_samples=50),
    )
    assert "not comparable" in sampled
    assert Recommender.load(tmp_path / "few").metrics["test"]["ndcg@5"] > found["ndcg@5"]


def test_d5_to_d7_embeddings_correlations_and_examples_with_hit_ratios_are_in_the_report(shop_run):
    text = (shop_run / "report.md").read_text()
    evaluation = json.loads((shop_run / "evaluation" / "evaluation.json").read_text())
    for part in ("## Embeddings", "Norms of item embeddings", "nearest neighbours", "Mean cosine"):  # D5
        assert part in text
    assert "correlate with the scores (Pearson r, Holm-corrected" in text  # D6
    assert "## Example recommendations" in text and "hit ratio" in text.lower()  # D7
    assert "slices" in evaluation and "feature_importance" in evaluation


def test_d5_sample_sizes_are_set_in_the_config(shop, tmp_path):
    options = settings(
        evaluation__diagnostics={"examples": 2}, features__image=None, defaults="fixed", blend=None, dim=16
    )
    options += settings(training__epochs=1, evaluation__baselines=["popularity"], data__max_users=60)
    run("train", "--data", shop, "--output_dir", tmp_path, "--set", "name=small", *options)
    assert json.loads((tmp_path / "small" / "config.json").read_text())["evaluation"]["diagnostics"]["examples"] == 2


def test_d8_one_report_as_markdown_and_html_with_pictures(shop, shop_run, tmp_path):
    page = (shop_run / "report.html").read_text()
    assert "<svg" in page and 'src="http' not in page and page.count("<table") >= 5
    assert list((shop_run / "figures").glob("*.png"))
    text = (shop_run / "report.md").read_text()
    assert "popularity" in text and "item_knn" in text and "ndcg@10" in text and "](figures/" in text
    users = pq.read_table(shop_run / "evaluation" / "users.parquet")
    assert users.num_rows > 100
