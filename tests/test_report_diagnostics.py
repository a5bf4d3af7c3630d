"""Diagnostics of embeddings and correlations, against plain loops."""

import math

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from reports import LAST, changed, classical, fit, with_column
from small import JOBS, small_config, small_dataset

from anyrec.core.config import DiagnosticsConfig
from anyrec.evaluation.measure import catalogue_statistics, measure
from anyrec.report.diagnostics import Embeddings, alignment, cohesion, correlations, embeddings, norms
from anyrec.report.feature_importance import feature_importance


def unit(vector):
    return vector / math.sqrt(sum(value * value for value in vector))


def test_cohesion_equals_a_plain_double_loop():
    data, rng = small_dataset(items=30), np.random.default_rng(0)
    tags = [[JOBS[n] for n in range(4) if rng.random() < 0.4] or None for _ in range(30)]
    data.items = with_column(data.items, "categorical.tags", pa.array(tags, pa.list_(pa.string())))
    vectors = rng.normal(size=(30, 5))
    vectors[:, :4] += [[2.0 * (job in (own or ())) for job in JOBS] for own in tags]
    found = cohesion(
        data, Embeddings(np.arange(30), vectors.astype(np.float32)), "categorical.tags", DiagnosticsConfig()
    )
    shared = [[bool(set(a or ()) & set(b or ())) for b in tags] for a in tags]
    near = []
    for one in range(30):
        others = sorted((n for n in range(30) if n != one), key=lambda n: -(unit(vectors[one]) @ unit(vectors[n])))
        near += [shared[one][other] for other in others[:10]]
    assert found[0] == pytest.approx(np.mean(near))
    anyone = np.mean([shared[a][b] for a in range(30) for b in range(30) if a != b])
    assert (
        found[1] == pytest.approx(anyone, abs=0.015) and found[0] > found[1] + 0.1
    )  # the second is of 20,000 drawn pairs


@pytest.mark.parametrize("rows", [np.arange(30), np.arange(0, 30, 2)])
def test_alignment_equals_a_plain_double_loop(rows):
    data, rng = small_dataset(items=30), np.random.default_rng(1)
    tags = [[job for job in JOBS if rng.random() < 0.4] for _ in range(30)]
    data.items = with_column(data.items, "categorical.tags", tags)
    data.items = with_column(data.items, "categorical.only", ["same"] * 30)
    data.items = with_column(data.items, "categorical.kind", [JOBS[n % 3] if n % 7 else None for n in range(30)])
    vectors = rng.normal(size=(30, 5)) + np.array([[3.0 * (n % 3 == place) for place in range(5)] for n in range(30)])
    found = {one.feature: one for one in alignment(data, "item", Embeddings(rows, vectors[rows].astype(np.float32)))}
    assert found.keys() == {"item categorical.tags", "item categorical.kind"}
    cosine = {(a, b): unit(vectors[a]) @ unit(vectors[b]) for a in rows for b in rows if a != b}
    kinds = [[kind] if kind else [] for kind in data.items["categorical.kind"].to_pylist()]
    for name, values in (("tags", tags), ("kind", kinds)):
        same = [cosine[a, b] for a, b in cosine for job in JOBS if job in values[a] and job in values[b]]
        assert found[f"item categorical.{name}"].same == pytest.approx(np.mean(same), abs=1e-6)
        assert found[f"item categorical.{name}"].any == pytest.approx(np.mean(list(cosine.values())), abs=1e-6)
    assert next(iter(found)) == "item categorical.kind"  # the strongest first


def test_a_model_of_planted_preferences_places_similar_records_together(reported):
    found, _ = reported
    near, anyone = found.diagnostics.cohesion
    assert near > 0.5 > anyone + 0.2
    assert found.diagnostics.alignment[0].feature in ("item categorical.category", "user categorical.occupation")
    assert found.diagnostics.alignment[0].same > found.diagnostics.alignment[0].any + 0.3
    data = found.recommender
    for side, made in (("user", data.embed_users()), ("item", data.embed_items())):
        np.testing.assert_allclose(found.diagnostics.embeddings[side].vectors, made["embedding"].to_pylist(), atol=1e-6)
        length = [math.sqrt(sum(x * x for x in vector)) for vector in made["embedding"].to_pylist()]
        assert norms(found.diagnostics.embeddings[side])["mean"] == pytest.approx(np.mean(length), rel=1e-5)


def test_cohesion_compares_as_many_neighbours_and_pairs_as_the_config_says():
    data = small_dataset(items=30)
    data.items = with_column(data.items, "categorical.kind", ["a", "b"] * 15)
    line = np.stack([np.ones(30), np.arange(30) * 0.02], 1).astype(np.float32)  # neighbours are next to each other
    items = Embeddings(np.arange(30), line)
    one, _ = cohesion(data, items, "categorical.kind", DiagnosticsConfig(neighbours=1))
    two, anyone = cohesion(data, items, "categorical.kind", DiagnosticsConfig(neighbours=29, pairs=1))
    assert one == 0 and two == pytest.approx(14 / 29) and anyone in (0.0, 1.0)


def test_the_config_sets_the_sample_sizes_of_embeddings_users_and_values():
    data = small_dataset()
    sizes = {"embeddings": 7, "scored_users": 5, "values": 2, "masked_users": 1}
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(training=training, evaluation={"diagnostics": sizes, "baselines": []}, split=LAST)
    recommender = fit(config, data)
    catalogue = catalogue_statistics(recommender.model)
    whole = measure(recommender.model, "test", catalogue, "model")
    found = embeddings(recommender.model)
    assert [len(one.rows) for one in found.values()] == [7, 7] == [len(one.vectors) for one in found.values()]
    tested = [one.feature for one in correlations(recommender.model.before("test"), whole, catalogue)]
    assert len([name for name in tested if name.startswith("user categorical.job = ")]) == 2
    users = np.sort(np.random.default_rng(0).permutation(whole.ranking.users)[:5])
    names = [f"u{user:03d}" for user in users for _ in range(40)]
    pairs = pa.table({"user_id": names, "item_id": data.ids("item").to_pylist() * 5})
    scores = recommender.score(pairs)["score"].to_numpy().reshape(5, 40)
    mean = ((scores - scores.mean(1, keepdims=True)) / scores.std(1, ddof=1, keepdims=True)).mean(0)
    price = data.items["continuous.price"].to_numpy()
    known = np.isfinite(price)
    one = {one.feature: one for one in correlations(recommender.model.before("test"), whole, catalogue)}
    expected = scipy.stats.pearsonr(price[known], mean[known]).statistic
    assert one["item continuous.price"].r == pytest.approx(expected, abs=1e-4)
    importance = feature_importance(recommender.model, "test", whole, "ndcg@10").values()
    assert importance and all(one.low == one.difference == one.high for one in importance)  # of one user


def priced(seed=0):
    """Return data of users who prefer cheap items, with a numeric item feature that is noise."""
    data, rng = small_dataset(users=80, items=60), np.random.default_rng(seed)
    price, noise = rng.normal(50, 10, 60), rng.normal(size=60)
    items = [f"i{row:03d}" for _ in range(80) for row in np.argsort(price / 10 + rng.gumbel(size=60))[:8]]
    table = with_column(with_column(data.items, "continuous.price", price), "continuous.noise", noise)
    return changed(data, items=table, interactions=with_column(data.interactions, "item_id", pa.array(items)))


def test_correlations_find_a_planted_feature_and_not_noise():
    recommender = fit(classical("ease"), priced())
    catalogue = catalogue_statistics(recommender.model)
    found = correlations(recommender.model, measure(recommender.model, "test", catalogue, "model"), catalogue)
    assert found[0].feature == "item continuous.price" and found[0].r < -0.5 and found[0].corrected < 0.001
    assert {one.feature: one for one in found}["item continuous.noise"].corrected > 0.05
    assert [abs(one.r) for one in found] == sorted((abs(one.r) for one in found), reverse=True)


def test_an_items_correlation_uses_its_mean_standardised_score():
    recommender = fit(classical("ease"), priced())
    data = recommender.dataset
    catalogue = catalogue_statistics(recommender.model)
    whole = measure(recommender.model, "test", catalogue, "model")
    found = {one.feature: one for one in correlations(recommender.model, whole, catalogue)}
    users = sorted(set(data.user_rows[recommender.model.split.test].tolist()))
    total = np.zeros(60)
    for user in users:
        pairs = pa.table({"user_id": [f"u{user:03d}"] * 60, "item_id": data.ids("item")})
        scores = recommender.score(pairs)["score"].to_numpy()
        total += (scores - scores.mean()) / scores.std(ddof=1)
    expected = scipy.stats.linregress(data.items["continuous.price"].to_numpy(), total / len(users))
    one = found["item continuous.price"]
    assert (one.r, one.p, one.n) == (pytest.approx(expected.rvalue), pytest.approx(expected.pvalue, rel=1e-3), 60)
    lists = recommender.recommend(None, 20, exclude_seen=False)  # a user's: how popular what they are shown is
    assert set(lists["user_id"].to_pylist()) == {f"u{user:03d}" for user in users}
    shown = whole.by_user["popularity@5"]
    ages = data.users["continuous.age"].to_numpy()[users]
    assert found["user continuous.age"].r == pytest.approx(scipy.stats.linregress(ages, shown).rvalue)
