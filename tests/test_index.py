"""Every index of torch and faiss keeps the contract; how search widths are tuned; the order of vectors in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core.discovery import discover
from anyrec.retrieval.tuning import smallest
from anyrec.retrieval.vector_order import proximity_order
from anyrec.testing import check_index

FAISS = ("flat", "hnsw", "ivf", "ivf_pq", "sq8")
KINDS = [
    ("exact", {}, 1.0),
    *(("exact", {"precision": name}, 0.95) for name in ("bf16", "int8")),
    *(("faiss", {"kind": kind}, 0.9) for kind in FAISS),
]
"""Index, options, and the smallest recall accepted: faiss is tuned for 0.95 by default."""


@pytest.mark.parametrize(("name", "params", "recall"), KINDS)
def test_an_index_keeps_the_contract(name, params, recall):
    check_index(discover().get("index", name), params, recall)


@given(st.integers(1, 3000), st.integers(1, 20))
def test_the_search_width_found_is_enough_and_little_more_in_few_trials(needed, first):
    tried = []

    def enough(width):
        tried.append(width)
        return width >= needed

    found = smallest(enough, first, 2048)
    if needed > 2048:
        assert found == 2048
    else:
        assert max(first, needed) <= found <= max(first, needed * 14 / 12 + 1)
    assert len(tried) <= 2 + np.log2(2048) + np.log2(2 * 12)


def test_the_proximity_order_puts_vectors_of_a_cluster_next_to_each_other():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 4, 6000)
    vectors = (rng.normal(size=(4, 12)) * 5)[cluster].astype(np.float32) + rng.normal(size=(6000, 12)).astype(
        np.float32
    )
    order = proximity_order(vectors)
    assert (np.sort(order) == np.arange(6000)).all()
    apart = (np.diff(cluster[order]) != 0).mean()
    assert apart < (np.diff(cluster) != 0).mean() / 3
    assert (proximity_order(vectors[:100]) == np.arange(100)).all()  # too few for two cells
