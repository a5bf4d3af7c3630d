"""Every index keeps the contract; the exact one finds what is nearest, to the last tie."""

from __future__ import annotations

import pytest

from anyrec.plugins import discover
from anyrec.testing import check_index

FAISS = ("flat", "hnsw", "ivf", "ivf_pq", "sq8")
KINDS = [
    ("exact", {}, 1.0),
    *(("exact", {"precision": name}, 0.95) for name in ("bf16", "int8")),
    *(("faiss", {"kind": kind, "recall": 0.99}, 0.5 if "ivf" in kind else 0.9) for kind in FAISS),
]
"""Least recall: half where vectors are added that are three times as long as those that cells were learned from."""


@pytest.mark.parametrize(("name", "params", "recall"), KINDS)
def test_an_index_keeps_the_contract(name, params, recall):
    check_index(discover().get("index", name), params, recall)
