"""Every index keeps the contract; the exact one finds what is nearest, to the last tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core.discovery import discover
from anyrec.retrieval.tuning import tune_width
from anyrec.retrieval.vector_order import proximity_order
from anyrec.testing import check_index

FAISS = ("flat", "hnsw", "ivf", "ivf_pq", "sq8")
KINDS = [
    ("exact", {}, 1.0),
    *(("exact", {"precision": name}, 0.95) for name in ("bf16", "int8")),
    *(("faiss", {"kind": kind}, 0.9) for kind in FAISS),
]
"""Options, and the least recall: faiss is asked for 0.95 by default."""


@pytest.mark.parametrize(("name", "params", "recall"), KINDS)
def test_an_index_keeps_the_contract(name, params, recall):
    check_index(discover().get("index", name), params, recall)


class Rising:
    """Finds nothing below a width, and from there on everything."""

    def __init__(self, enough):
        self.enough, self.tried = enough, []

    def held_out(self, count):
        return np.empty((count, 1)), np.empty(count)

    def recalls_of(self, queries, kth):
        self.tried.append(self.width)
        return np.full(len(queries), float(self.width >= self.enough))


@given(st.integers(1, 3000), st.integers(1, 20))
def test_the_width_found_is_enough_and_little_more_in_few_trials(enough, first):
    index = Rising(enough)
    tune_width(index, first, 2048, 0.95)
    if enough > 2048:
        assert index.width == 2048
    else:
        assert max(first, enough) <= index.width <= max(first, enough * 14 / 12 + 1)
    assert len(index.tried) <= 2 + np.log2(2048) + np.log2(2 * 12)


def test_side_by_side_is_an_order_in_which_what_is_near_stands_near():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 4, 6000)
    vectors = (rng.normal(size=(4, 12)) * 5)[cluster].astype(np.float32) + rng.normal(size=(6000, 12)).astype(
        np.float32
    )
    order = proximity_order(vectors)
    assert (np.sort(order) == np.arange(6000)).all()
    apart = (np.diff(cluster[order]) != 0).mean()
    assert apart < (np.diff(cluster) != 0).mean() / 3
    assert (proximity_order(vectors[:100]) == np.arange(100)).all()  # few: they lie together as they are
