"""Lists of a blend through an index: candidates of the towers and of the members, scored by the blend."""

from __future__ import annotations

import numpy as np
import pytest
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.data.defaults import resolve_config
from anyrec.model.blended import BlendedModel
from anyrec.model.result_tables import index_of
from anyrec.retrieval import blend_candidates

FLAT = {"type": "faiss", "kind": "flat"}
DATA = {"users": 120, "items": 40, "each": 8}


@pytest.fixture(scope="module")
def blend():
    models = [{"type": "ease", "l2": 20.0}, {"type": "popularity"}]
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(training=training, split={"protocol": "leave_last_out"}, blend={"models": models})
    fitted = Recommender.from_config(config).fit(small_dataset(**DATA), progress=False)
    assert isinstance(fitted.model, BlendedModel)
    return fitted


@pytest.fixture(scope="module")
def indexed(blend):
    return blend.with_config({"index": FLAT})


@pytest.fixture
def few(monkeypatch):
    """Fewer candidates than items."""
    monkeypatch.setattr(blend_candidates, "DEPTH", 2)
    monkeypatch.setattr(blend_candidates, "LEAST", 6)


def scores_of(recommender, table) -> np.ndarray:
    return recommender.score(table.select(["user_id", "item_id"]))["score"].to_numpy()


@pytest.mark.parametrize("options", [{}, {"exclude_seen": False}, {"candidates": [f"i{n:03d}" for n in range(12)]}])
def test_with_all_items_as_candidates_the_lists_are_those_of_scoring_all_items(blend, indexed, options):
    found, scanned = indexed.recommend(None, 5, **options), blend.recommend(None, 5, **options)
    assert index_of(found) == FLAT and index_of(scanned) == {"type": "exact"}
    assert found.select(["user_id", "item_id", "rank"]).equals(scanned.select(["user_id", "item_id", "rank"]))
    np.testing.assert_allclose(found["score"].to_numpy(), scanned["score"].to_numpy(), atol=1e-4)


def test_with_few_candidates_every_listed_item_has_its_score_and_nearly_all_of_the_best_are_listed(blend, indexed, few):
    found, scanned = indexed.recommend(None, 3), blend.recommend(None, 3)
    np.testing.assert_allclose(found["score"].to_numpy(), scores_of(blend, found), atol=1e-4)
    best = set(zip(scanned["user_id"].to_pylist(), scanned["item_id"].to_pylist(), strict=True))
    listed = set(zip(found["user_id"].to_pylist(), found["item_id"].to_pylist(), strict=True))
    assert len(best & listed) >= 0.95 * len(best)


def test_a_user_gets_as_many_items_as_may_be_listed(indexed, few):
    allowed = [f"i{n:03d}" for n in range(7)]
    for k in (3, 7, 30):
        found = indexed.recommend(None, k, exclude_seen=False, candidates=allowed)
        assert set(found["user_id"].value_counts().field("counts").to_pylist()) == {min(k, 7)}
        assert set(found["item_id"].to_pylist()) <= set(allowed)


def test_users_are_taken_in_blocks_of_bounded_memory(indexed, monkeypatch):
    whole = indexed.recommend(None, 5)
    monkeypatch.setattr(blend_candidates, "CELLS_AT_A_TIME", 7 * 40)
    found = indexed.recommend(None, 5)
    assert found.select(["user_id", "item_id"]).equals(whole.select(["user_id", "item_id"]))
    np.testing.assert_allclose(found["score"].to_numpy(), whole["score"].to_numpy(), atol=1e-5)  # sums of other blocks


def test_a_pipeline_retrieves_through_the_index(blend, indexed):
    staged = indexed.with_config({"pipeline": {"retrieve": {"k": 5}}})
    answer = staged.answer(None, 5)
    assert answer.index == FLAT
    assert answer.table["item_id"].equals(blend.recommend(None, 5)["item_id"])


def test_an_approximate_index_does_not_exclude_the_blend_of_the_fitted_defaults():
    complete, _ = resolve_config(Config.model_validate({"index": FLAT}), small_dataset(**DATA), discover())
    assert complete.blend is not None
