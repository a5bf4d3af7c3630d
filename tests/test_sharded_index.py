"""An index in shards finds what one index finds: the same keys and scores, ties and filters included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_config, small_dataset

from anyrec import Recommender
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.retrieval.create_index import create_index
from anyrec.retrieval.indexes.sharded import Sharded
from anyrec.testing import check_index

DIM = 3


def make(shards, of=None, metric="dot", dim=DIM):
    return create_index("sharded", dim=dim, metric=metric, options={"shards": shards, "of": of or {"type": "exact"}})


def vectors(draw, count):
    """Few different integers: many equal scores, and products without rounding."""
    rows = draw(st.lists(st.tuples(*[st.integers(-2, 2)] * DIM), min_size=count, max_size=count))
    return np.array(rows, np.float32).reshape(count, DIM)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_search_finds_what_one_exact_index_finds(data):
    """Between the searches keys are added, replaced and removed; masks for all queries, for each, and single pairs.

    After a replacement rows are not in the order of keys. The index `exact` then chooses by row among equal scores at
    the end of a list, so only the scores are compared.
    """
    draw, one = data.draw, create_index("exact", dim=DIM, metric="dot", options={"precision": "float32"})
    sharded = make(draw(st.integers(1, 9)), {"type": "exact", "precision": "float32"})
    first = draw(st.integers(0, 30))
    start, in_order = vectors(draw, first), True
    for index in (one, sharded):
        index.build(start.copy())
    for _ in range(draw(st.integers(1, 3))):
        queries, k = vectors(draw, draw(st.integers(1, 4))), draw(st.integers(1, 45))
        shape = draw(st.sampled_from([None, (40,), (len(queries), 40)]))
        allowed = None
        if shape is not None:
            bits = draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
            allowed = np.array(bits).reshape(shape)
        pairs = sorted(draw(st.sets(st.tuples(st.integers(0, len(queries) - 1), st.integers(0, 39)), max_size=20)))
        exclude = tuple(np.array(part, np.int64) for part in zip(*pairs, strict=True)) if pairs else None
        expected, found = (index.search(queries, k, allowed, exclude) for index in (one, sharded))
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.keys >= 0, expected.keys >= 0)
        if in_order:
            np.testing.assert_array_equal(found.keys, expected.keys)
        changed = np.array(sorted(draw(st.sets(st.integers(0, 39), max_size=10))), np.int64)
        in_order &= len(changed) == 0 or changed[0] > one.store.keys.max(initial=-1)
        new, gone = vectors(draw, len(changed)), draw(st.sets(st.integers(0, 39), max_size=15))
        for index in (one, sharded):
            index.add(changed, new)
            index.remove(np.array(sorted(gone), np.int64))


@pytest.mark.parametrize(
    "of", [{"type": "exact"}, {"type": "faiss", "kind": "hnsw"}, {"type": "exact", "precision": "int8"}]
)
def test_a_sharded_index_keeps_the_contract(of):
    check_index(Sharded, {"shards": 3, "of": of})


def test_a_shard_is_smaller_than_k_and_some_shards_have_nothing_eligible():
    points = np.arange(12, dtype=np.float32)[:, None] * np.ones(DIM, np.float32)
    index = make(6)
    index.build(points)
    keys, _ = index.search(np.ones((1, DIM)), 5, np.arange(12) < 4)
    assert keys.tolist() == [[3, 2, 1, 0, -1]]
    assert make(50).requested_recall is None


def test_a_loaded_index_finds_the_same_and_damaged_shards_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    points, index = rng.normal(size=(300, DIM)).astype(np.float32), make(4)
    index.build(points)
    index.add(np.arange(300, 320), points[:20] + 1)
    index.remove(np.arange(5, 50))
    index.save(tmp_path)
    loaded = make(4)
    loaded.load(tmp_path)
    queries = rng.normal(size=(7, DIM)).astype(np.float32)
    for one, other in zip(index.search(queries, 20), loaded.search(queries, 20), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.add(np.array([400]), 9 * points[:1])
    assert 400 in loaded.search(points[:1], 1).keys
    np.save(tmp_path / "shard-1" / "rows.npy", np.arange(75))
    with pytest.raises(ValueError, match="each row once"):
        make(4).load(tmp_path)


def test_options_of_shards_are_checked_and_a_shard_is_not_divided_again():
    with pytest.raises(ConfigError, match="efs"):
        Recommender.from_config({"index": {"type": "sharded", "of": {"type": "exact", "efs": 1}}})
    with pytest.raises(ConfigError, match="divided again"):
        Recommender.from_config({"index": {"type": "sharded", "of": {"type": "sharded"}}})


def test_lists_of_a_model_with_a_sharded_index_are_those_of_all_items(tmp_path):
    """The index is saved with the model, and built by `anyrec index`."""
    fitted = Recommender.from_config(small_config(index={"shards": 3})).fit(small_dataset(), progress=False)
    folder = fitted.save(tmp_path / "run" / "model")
    loaded, users = Recommender.load(folder), ["u001", "u002", "u033"]
    exact = loaded.with_config({"index": {"type": "exact"}}, progress=False)
    for one in (fitted, loaded):
        assert one.config.index.type == "sharded" and one.answer(users).index["type"] == "sharded"
        assert one.recommend(users, 10).column("item_id").equals(exact.recommend(users, 10).column("item_id"))
    code, out, message = call("index", "--model-path", folder, "--type", "sharded", "--set", "shards=2")
    assert code == 0 and "sharded" in out + message, message


def test_the_shards_of_a_further_index_can_be_a_plugin(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from anyrec.retrieval.indexes.exact import Exact\n\n\nclass Mine(Exact):\n    type = 'mine'\n"
    )
    registry = discover([tmp_path])
    options = {"shards": 2, "of": {"type": "mine"}}
    assert registry.get("index", "sharded").options_for_another(options, "similar", registry) == options
