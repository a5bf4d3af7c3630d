"""Inference: records never seen, unknown ids, new items, and what the request leaves out."""

import pyarrow as pa
import pytest
from small import small_config, small_dataset

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError
from anyrec.data.partial import read_partial
from anyrec.recommender import Recommender
from anyrec.serving.result import infer


@pytest.fixture(scope="module")
def fitted():
    return Recommender.from_config(small_config(id_dropout=0.5)).fit(small_dataset(), progress=False)


def ask(fitted, document, **options):
    return infer(fitted, read_partial(document, DataConfig(), fitted.dataset.roles), 5, embeddings=True, **options)


def test_an_unknown_user_is_represented_by_features(fitted):
    nurse, pilot = (
        {"user_id": f"new {job}", "categorical": {"job": job}, "text": {"bio": f"I work as a {job}"}}
        for job in ("nurse", "pilot")
    )
    result = ask(fitted, {"user_data": [nurse, pilot, {"user_id": "nobody"}]})
    lists = [[r["item_id"] for r in user["recommendations"]] for user in result["users"]]
    assert lists[0] != lists[1]
    assert all(len(items) == 5 for items in lists)
    assert all(r["rank"] == n + 1 for user in result["users"] for n, r in enumerate(user["recommendations"]))


def test_a_known_id_without_features_stands_for_the_known_user(fitted):
    result = ask(fitted, {"user_data": [{"user_id": "u003"}]})
    known = fitted.recommend(["u003"], 5)
    assert [r["item_id"] for r in result["users"][0]["recommendations"]] == known["item_id"].to_pylist()
    assert result["users"][0]["embedding"] == fitted.embed_users(["u003"])["embedding"].to_pylist()[0]


def test_a_new_item_joins_the_ranking_without_retraining(fitted):
    twin = {"item_id": "brand new", "categorical": {"tags": ["nurse", "all"]}, "text": {"title": "Thing for a nurse"}}
    document = {"user_data": [{"user_id": "x", "categorical": {"job": "nurse"}}], "item_data": [twin]}
    wide = infer(fitted, read_partial(document, DataConfig(), fitted.dataset.roles), 41)
    listed = [r["item_id"] for r in wide["users"][0]["recommendations"]]
    assert len(listed) == 41 and "brand new" in listed
    score = next(r["score"] for r in wide["users"][0]["recommendations"] if r["item_id"] == "brand new")
    assert wide["scores"] == [{"user_id": "x", "item_id": "brand new", "score": pytest.approx(score, abs=1e-6)}]
    assert len(fitted.dataset.items) == 40


def test_the_pairs_of_a_request_are_scored(fitted):
    rows = [{"user_id": "x", "item_id": "i001"}, {"user_id": "x", "item_id": "i002"}]
    result = ask(fitted, {"user_data": [{"user_id": "x"}], "interactions": rows})
    assert [(row["user_id"], row["item_id"]) for row in result["scores"]] == [("x", "i001"), ("x", "i002")]


def test_an_unknown_id_is_named_in_the_warnings(fitted):
    with pytest.raises(DataError, match="knows no such user"):
        fitted.recommend(["u001", "zz"], 3)
    with pytest.raises(DataError, match="knows no such item"):
        fitted.similar(["zz"])
    with pytest.raises(DataError, match="knows no such item"):
        fitted.recommend(["u001"], 3, candidates=["zz"])


def test_records_may_be_given_as_dicts_or_tables(fitted):
    record = {"user_id": "x", "categorical": {"job": "nurse"}, "temporal": {"spending": [20.0]}}
    table = pa.table({"user_id": ["x"], "categorical.job": ["nurse"], "temporal.spending": pa.array([[20.0]])})
    assert fitted.recommend([record], 4).equals(fitted.recommend(table, 4))


def test_similar_items_share_the_planted_category(fitted):
    assert fitted.similar(["i000"], 3).column_names == ["query_id", "item_id", "score", "rank"]
    tags = dict(
        zip(
            fitted.dataset.items["item_id"].to_pylist(),
            fitted.dataset.items["categorical.tags"].to_pylist(),
            strict=True,
        )
    )
    near = fitted.similar(list(tags), 3).to_pylist()
    share = sum(tags[row["query_id"]] == tags[row["item_id"]] for row in near) / len(near)
    assert share > 0.4  # by chance it would be about a quarter
