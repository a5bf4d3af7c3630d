"""Work that does not depend on a request is done once, and sparse histories are scored as sparse ones."""

import numpy as np
import pyarrow as pa
import pytest
from asked import ask
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from anyrec.interaction.classical import rows_times
from anyrec.pipeline.candidate_lists import first_listable
from anyrec.pipeline.sources.popularity import PopularitySource


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(1, 9), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_histories_times_weights_is_the_dense_product_at_any_density(users, items, density, seed):
    rng = np.random.default_rng(seed)
    matrix = sparse.random(users, items, density, "csr", np.float32, rng)
    weights = rng.standard_normal((items, items), dtype=np.float32)
    assert np.allclose(rows_times(matrix, weights), matrix.toarray() @ weights, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_first_listable_items_are_those_of_the_whole_order(data):
    items, k = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    order, users = rng.permutation(items), 3
    shape = data.draw(st.sampled_from([None, (items,), (users, items)]))
    allowed = None if shape is None else rng.random(shape) < data.draw(st.sampled_from([0.0, 0.2, 0.9]))
    found = first_listable(order, users, k, allowed)
    full = np.ones((users, items), bool) if allowed is None else np.broadcast_to(allowed, (users, items))
    for own, may in zip(found, full, strict=True):
        assert own[own >= 0].tolist() == [item for item in order if may[item]][:k]


@pytest.mark.parametrize("group", [None, "categorical.c"])
def test_the_popularity_source_sorts_the_catalogue_once(group, monkeypatch):
    request = ask({"item_id": ["i0", "i1"]}, {"categorical.c": ["x", "y", "x"]})
    source = PopularitySource(PopularitySource.Params(group=group))
    names = np.frombuffer(b"x\0y", np.uint8).copy()
    source.restore({"counts": np.array([[1, 3], [2, 1], [0, 1]][: 3 if group else 1], np.float32), "groups": names})
    sorts, argsort = [], np.argsort
    monkeypatch.setattr(np, "argsort", lambda *a, **k: (sorts.append(a), argsort(*a, **k))[1])
    lists = [source.retrieve(request, 2, None) for _ in range(5)]
    assert len(sorts) == (2 if group else 1)
    assert lists[4].items.tolist() == ([[0, 1], [1, 0], [0, 1]] if group else [[1, 0]] * 3)
    assert lists[4].scores[0].tolist() == ([2, 1] if group else [3, 1])


def test_items_added_after_training_are_last_with_a_score_of_zero():
    request = ask({"categorical.a": pa.array(["a", "b", "c"])})
    source = PopularitySource()
    source.restore({"counts": np.array([[1, 3]], np.float32), "groups": np.empty(0, np.uint8)})
    lists = source.retrieve(request, 5, None)
    assert lists.items.tolist() == [[1, 0, 2]] and lists.scores.tolist() == [[3, 1, 0]]
