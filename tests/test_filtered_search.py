"""A search returns min(k, eligible) keys with true scores, whatever is filtered, excluded, added or removed."""

from __future__ import annotations

import importlib.util
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyrec.core.discovery import discover
from anyrec.retrieval import filtered_search

BACKENDS = {
    "exact": ("exact", {}, None),
    "faiss-flat": ("faiss", {"kind": "flat"}, None),
    "faiss-hnsw": ("faiss", {"kind": "hnsw"}, None),
    "faiss-ivf": ("faiss", {"kind": "ivf"}, None),
    "faiss-ivf_pq": ("faiss", {"kind": "ivf_pq", "m": 4}, None),
    "faiss-sq8": ("faiss", {"kind": "sq8"}, None),
    "annoy": ("annoy", {"recall": 0.99}, "annoy"),
    "usearch-bf16": ("usearch", {"dtype": "bf16", "recall": 0.99}, "usearch"),
    "usearch-i8": ("usearch", {"dtype": "i8", "recall": 0.99}, "usearch"),
    "qdrant": ("qdrant", {}, "qdrant_client"),
}
DIM = 8
MANY = {"qdrant": 600}
"""Rows of the big index, by default 10,000; Qdrant's stand-in within the process compares them one by one."""
few_examples = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=BACKENDS)
def name(request):
    package = BACKENDS[request.param][2]
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'anyrec[{BACKENDS[request.param][0]}]'")
    return request.param


@pytest.fixture
def no_scan(monkeypatch):
    """Let the backend search among few eligible rows too."""
    monkeypatch.setattr(filtered_search, "SCAN_ROWS", 20)


@cache
def backend(kind):
    return discover().get("index", kind)


def made(name, metric):
    kind, options, _ = BACKENDS[name]
    cls = backend(kind)
    return cls(DIM, metric, cls.Params(**options))


def drawn(rows, seed):
    """Vectors in clusters, of unequal norm, some of them zero or equal."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, DIM))
    vectors = centres[rng.integers(0, 20, rows)] + 0.4 * rng.normal(size=(rows, DIM))
    vectors *= rng.lognormal(0, 0.4, (rows, 1))
    vectors[rng.random(rows) < 0.02] = 0
    vectors[rng.random(rows) < 0.02] = centres[0]
    return vectors.astype(np.float32)


class Twin:
    """The same vectors in a dictionary, and every score in float64."""

    def __init__(self, metric):
        self.metric, self.vectors = metric, {}

    def set(self, keys, vectors):
        self.vectors.update(zip(keys.tolist(), vectors, strict=True))

    def remove(self, keys):
        for key in keys.tolist():
            self.vectors.pop(key, None)

    def scores(self, queries):
        """keys: (n,), ascending, and (queries, n) scores."""
        keys = np.array(sorted(self.vectors), np.int64)
        vectors = np.array([self.vectors[key] for key in keys], np.float64).reshape(-1, DIM)
        queries = queries.astype(np.float64)
        if self.metric == "cosine":
            vectors, queries = _unit(vectors), _unit(queries)
        return keys, queries @ vectors.T


def _unit(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def checked(index, twin, queries, k, allowed=None, exclude=None):
    """Compare the result of a search with the twin. Returns the fraction of the truly best that was found."""
    found = index.search(queries, k, allowed, exclude)
    keys, scores = twin.scores(queries)
    assert found.keys.shape == found.scores.shape == (len(queries), k)
    denied = set() if exclude is None else set(zip(exclude[0].tolist(), exclude[1].tolist(), strict=True))
    shares = []
    for row, (got, values) in enumerate(zip(found.keys, found.scores, strict=True)):
        mask = None if allowed is None else allowed if allowed.ndim == 1 else allowed[row]
        free = np.array([mask is None or (key < len(mask) and bool(mask[key])) for key in keys], bool)
        free &= np.array([(row, key) not in denied for key in keys.tolist()], bool)
        wanted = min(k, int(free.sum()))
        assert (got[wanted:] == -1).all() and (values[wanted:] == -np.inf).all()
        got, values = got[:wanted], values[:wanted]
        assert len(set(got.tolist())) == wanted and np.isin(got, keys[free]).all()
        true = scores[row][np.searchsorted(keys, got)]
        np.testing.assert_allclose(values, true, atol=1e-4 * max(1, np.abs(scores[row]).max(initial=0)))
        assert (np.diff(values) <= 0).all()
        if wanted:
            bound = np.sort(scores[row][free])[-wanted]
            shares.append((true >= bound - 1e-6).mean())
    return float(np.mean(shares)) if shares else 1.0


@cache
def big(name, metric):
    """An index of many rows, a fifth of them removed, added or replaced since it was built, and its twin."""
    rows = MANY.get(name, 10_000)
    index, twin = made(name, metric), Twin(metric)
    rng = np.random.default_rng(5)
    keys = np.sort(rng.choice(2 * rows, rows, replace=False))
    vectors = drawn(rows, 1)
    index.build(
        vectors, keys, queries=np.concatenate([drawn(200, 3), drawn(200, 4)]) + 0.1
    )  # like those searched for below
    twin.set(keys, vectors)
    gone = rng.choice(keys, rows // 10, replace=False)
    index.remove(gone)
    twin.remove(gone)
    new = np.concatenate([gone[: rows // 50], rng.choice(keys, rows // 50, replace=False), 2 * rows + np.arange(20)])
    new = np.unique(new)
    more = drawn(len(new), 2)
    index.add(new, more)
    twin.set(new, more)
    return index, twin


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["dot", "cosine"])
@given(data=st.data())
@few_examples
def test_k_eligible_keys_come_back_at_any_selectivity(name, metric, no_scan, data):
    index, twin = big(name, metric)
    last = max(twin.vectors) + 1
    share = 10 ** data.draw(st.floats(-4, 0), label="log of the share that is eligible")
    k = data.draw(st.sampled_from([1, 10, 100, 1000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    queries = drawn(3, rng.integers(1000)) + 0.1
    each = data.draw(st.booleans(), label="each query has its own")
    allowed = rng.random((3, last) if each else last) < share
    pairs = data.draw(st.integers(0, 50))
    which = np.sort(rng.integers(0, 3, pairs))
    checked(index, twin, queries, k, allowed if share < 1 else None, (which, rng.integers(0, last, pairs)))


@given(data=st.data())
@few_examples
def test_additions_and_removals_show_in_the_next_search(name, no_scan, data):
    metric = data.draw(st.sampled_from(["dot", "cosine"]))
    rows = data.draw(st.integers(1, 150))
    index, twin = made(name, metric), Twin(metric)
    keys, vectors = np.arange(rows), drawn(rows, data.draw(st.integers(0, 99)))
    index.build(vectors)
    twin.set(keys, vectors)
    for _ in range(data.draw(st.integers(1, 4))):
        some = np.unique(np.array(data.draw(st.lists(st.integers(0, 200), max_size=60)), np.int64))
        if data.draw(st.booleans()):
            index.remove(some)
            twin.remove(some)
        else:
            vectors = drawn(len(some), int(some.sum())) * 1.5
            index.add(some, vectors)
            twin.set(some, vectors)
        queries = drawn(2, len(some)) + 0.1
        allowed = np.random.default_rng(len(some)).random(201) < data.draw(st.sampled_from([0.05, 0.5, 1.0]))
        checked(index, twin, queries, data.draw(st.sampled_from([1, 7, 300])), allowed)
        checked(index, twin, queries[:1], 5)


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_recall_is_full_if_one_row_in_a_hundred_is_eligible(name, metric):
    index, twin = big(name, metric)
    allowed = np.random.default_rng(0).random(max(twin.vectors) + 1) < 0.01
    assert checked(index, twin, drawn(30, 3) + 0.1, 10, allowed) >= 0.99


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_the_filter_of_the_backend_finds_nearly_as_many_as_a_scan(name, metric, no_scan):
    index, twin = big(name, metric)
    allowed = np.random.default_rng(0).random(max(twin.vectors) + 1) < 0.3
    assert checked(index, twin, drawn(30, 3) + 0.1, 10, allowed) >= 0.8
    assert checked(index, twin, drawn(30, 4) + 0.1, 10) >= 0.9
