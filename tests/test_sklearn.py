"""The estimator keeps the conventions of scikit-learn, and its scores are those of the ranking metrics."""

import copy
import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import ROOT
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from small import small_config, small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.errors import ConfigError, InputError
from anyrec.sklearn import RecommenderEstimator, cross_validate

DATA = small_dataset()
CONFIG = {"model": {"type": "ials", "factors": 8, "iterations": 3}}
FRAMES = {"pandas": lambda table: table.to_pandas(), "polars": pl.from_arrow, "arrow": lambda table: table}


def estimator_of(config=CONFIG, form="pandas", **options):
    convert = FRAMES[form]
    return RecommenderEstimator(config, users=convert(DATA.users), items=convert(DATA.items), **options)


def test_a_clone_has_the_parameters_and_nothing_that_was_fitted():
    estimator = estimator_of(metric="recall@5").fit(DATA.interactions.to_pandas())
    other = clone(estimator)
    assert other.config == CONFIG and other.config is not estimator.config and other.metric == "recall@5"
    assert not hasattr(other, "recommender_")
    with pytest.raises(Exception, match="not fitted"):
        other.predict(DATA.interactions.to_pandas())


def test_keys_of_the_config_are_parameters():
    before = copy.deepcopy(CONFIG)
    estimator = estimator_of()
    assert estimator.get_params()["config__model__factors"] == 8
    assert "config__model__factors" not in estimator.get_params(deep=False)
    estimator.set_params(config__model__factors=4, config__evaluation__k=[5], metric="ndcg@5")
    assert estimator.config == {"model": {**CONFIG["model"], "factors": 4}, "evaluation": {"k": [5]}}
    assert before == CONFIG and estimator.metric == "ndcg@5"
    with pytest.raises(ValueError, match="Invalid parameter 'metrics'"):
        estimator.set_params(metrics="ndcg@5")
    with pytest.raises(InputError, match="only in a dict"):
        RecommenderEstimator("cfg.json").set_params(config__dim=8)
    with pytest.raises(ConfigError, match="factors"):
        estimator.set_params(config__model__factor=4).fit(DATA.interactions)


@pytest.mark.parametrize("form", FRAMES)
def test_tables_of_every_kind_give_the_same_model(form):
    interactions = FRAMES[form](DATA.interactions)
    estimator = estimator_of(form=form).fit(interactions)
    plain = estimator_of(form="arrow").fit(DATA.interactions)
    assert estimator.recommend(["u001"], 5).equals(plain.recommend(["u001"], 5))
    pairs = FRAMES[form](DATA.interactions.slice(0, 7).select(["user_id", "item_id"]))
    np.testing.assert_array_equal(estimator.predict(pairs), plain.predict(pairs))
    assert estimator.predict(pairs).shape == (7,)


def test_everything_is_learned_from_unless_the_config_sets_a_split():
    estimator = estimator_of().fit(DATA.interactions.to_pandas())
    assert not len(estimator.recommender_.split.test)
    assert (estimator.recommender_.model.seen.counts() == 8).all()
    with_split = estimator_of({**CONFIG, "split": {"protocol": "leave_last_out"}}).fit(DATA.interactions)
    assert len(with_split.recommender_.split.test) == 60


def test_the_score_is_the_metric_of_the_lists_in_which_the_held_out_items_should_be():
    """The reference: NDCG of one item is 1 / log2(rank + 1), by the rank in the full list."""
    last = np.arange(480) % 8 == 7
    held = DATA.interactions.filter(pa.array(last))
    estimator = estimator_of(form="arrow").fit(DATA.interactions.filter(pa.array(~last)))
    found = estimator.evaluate(held)
    assert (found["pairs"], found["missed"]) == (60, 0)
    order = estimator.recommend(k=40, to="pandas")
    rank = {(one.user_id, one.item_id): one.rank for one in order.itertuples()}
    pairs = held.select(["user_id", "item_id"]).to_pandas().to_numpy()
    gains = [1 / np.log2(rank[user, item] + 1) if rank[user, item] <= 10 else 0.0 for user, item in pairs]
    assert found["ndcg@10"] == pytest.approx(np.mean(gains), abs=1e-9)
    assert estimator.score(held) == found["ndcg@10"]


def test_pairs_that_the_model_does_not_know_are_misses():
    known = DATA.interactions.to_pandas()
    estimator = RecommenderEstimator(CONFIG).fit(known.iloc[:-1])
    held = pd.DataFrame({"user_id": ["u000", "nobody", "u001"], "item_id": ["never", "i001", "i001"]})
    only = estimator.evaluate(held.iloc[2:])
    found = estimator.evaluate(held)
    assert (found["pairs"], found["missed"]) == (3, 2)
    for name in ("ndcg@10", "recall@20", "mrr@10"):
        assert found[name] == pytest.approx(only[name] / 3)


def test_the_estimator_works_in_the_searches_of_scikit_learn():
    interactions = DATA.interactions.to_pandas()
    scores = cross_val_score(estimator_of(), interactions, cv=KFold(3, shuffle=True, random_state=0))
    assert scores.shape == (3,) and np.isfinite(scores).all() and (scores > 0).all()
    search = GridSearchCV(estimator_of(), {"config__model__factors": [2, 8]}, cv=KFold(2, shuffle=True, random_state=0))
    search.fit(interactions)
    assert search.best_params_["config__model__factors"] in (2, 8)
    assert search.best_estimator_.recommend(["u001"], 3, to="polars").height == 3
    assert search.best_estimator_.recommender_.config.model.options()["factors"] in (2, 8)


def test_targets_and_unknown_metrics_are_refused():
    with pytest.raises(InputError, match="column `rating`"):
        estimator_of().fit(DATA.interactions.to_pandas(), np.ones(480))
    with pytest.raises(InputError, match="ndcg@10"):
        estimator_of(metric="ndcg@11").fit(DATA.interactions).score(DATA.interactions.slice(0, 5))


def test_folds_test_each_positive_once_and_named_splits_follow_their_protocol():
    table = cross_validate(CONFIG, DATA, 3, to="pandas")
    assert list(table["fold"]) == [0, 1, 2] and set(table["protocol"]) == {"folds"}
    assert table["tested"].sum() == 480 and (table["ndcg@10"] > 0).all()
    again = cross_validate(CONFIG, DATA, 3)
    assert again.column("ndcg@10").to_pylist() == table["ndcg@10"].tolist()
    named = cross_validate(CONFIG, DATA, ["leave_last_out", {"protocol": "random", "test": 0.3}])
    alone = Recommender.from_config({**CONFIG, "split": {"protocol": "leave_last_out"}}).fit(DATA, progress=False)
    assert named.column("protocol").to_pylist() == ["leave_last_out", "random"]
    assert named.column("ndcg@10")[0].as_py() == alone.metrics["test"]["ndcg@10"]
    assert named.column("tested")[1].as_py() == pytest.approx(144, abs=2)
    with pytest.raises(ConfigError, match="protocol"):
        cross_validate(CONFIG, DATA, ["leave_last"])
    with pytest.raises(InputError, match="folds"):
        cross_validate(CONFIG, DATA, 1)


@pytest.fixture(scope="module")
def towers():
    config = small_config(training={"epochs": 1, "batch_size": 128, "patience": None})
    return Recommender.from_config(config).fit(DATA, progress=False)


@pytest.mark.parametrize(("form", "kind"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame), ("arrow", pa.Table)])
def test_methods_return_the_kind_of_table_that_is_wanted(towers, form, kind):
    recommender = towers
    calls = {
        "recommend": lambda **to: recommender.recommend(["u001"], 3, **to),
        "similar": lambda **to: recommender.similar(["i001"], 3, **to),
        "search": lambda **to: recommender.search(text="pilot", k=3, **to),
        "score": lambda **to: recommender.score([{"user_id": "u001", "item_id": "i001"}], **to),
        "embed_users": lambda **to: recommender.embed_users(["u001"], **to),
        "embed_items": lambda **to: recommender.embed_items(["i001"], **to),
    }
    for name, method in calls.items():
        found, arrow = method(to=form), method()
        assert isinstance(found, kind), name
        ids = arrow.column_names[0]
        assert list(found[ids].to_pylist() if form == "arrow" else found[ids]) == arrow[ids].to_pylist()
        with pytest.raises(InputError, match=r"no kind of table 'panda'.*pandas"):
            method(to="panda")


def test_lazy_frames_are_read():
    tables = [pl.from_arrow(table).lazy() for table in (DATA.users, DATA.items, DATA.interactions)]
    assert Dataset.from_tables(*tables).interactions.num_rows == 480


def test_the_examples_of_the_page_work():
    page = (ROOT / "docs" / "sklearn.md").read_text(encoding="utf-8")
    names = {name: getattr(DATA, name).to_pandas() for name in ("users", "items", "interactions")} | {"dataset": DATA}
    names |= {"train": names["interactions"].iloc[:400], "held_out": names["interactions"].iloc[400:]}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "page", "exec"), names)
    assert names["folds"]["ndcg@10"].mean() > 0
