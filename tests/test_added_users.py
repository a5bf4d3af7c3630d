"""Users, items and interactions that are added after training: the lists are those of requests that bring them."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_config, small_dataset

from anyrec import Recommender
from anyrec.core.contracts import Context
from anyrec.core.errors import DataError, InputError, ModelError
from anyrec.data.pairs import Pairs
from anyrec.model.added_users import AddedUsers, WiderPairs
from anyrec.model.records import Records
from anyrec.model.result_tables import index_of
from anyrec.retrieval.model_index import item_index

FLAT = {"type": "faiss", "kind": "flat"}
ONE_EPOCH = {"epochs": 1, "batch_size": 128, "patience": None}
LAST = {"protocol": "leave_last_out"}
HISTORY = {"window": 10, "layers": 1, "heads": 2}
CONFIGS = {
    "towers": small_config(training=ONE_EPOCH, split=LAST),
    "sequence": small_config(
        training=ONE_EPOCH, split=LAST, features={"history": HISTORY}, loss={"type": "full_softmax"}
    ),
    "blend": small_config(
        training=ONE_EPOCH,
        split=LAST,
        blend={"models": [{"type": "ease", "l2": 20.0}, {"type": "popularity"}, {"type": "trending"}]},
    ),
    "pipeline": small_config(
        training=ONE_EPOCH,
        split=LAST,
        pipeline={
            "retrieve": {
                "k": 40,
                "sources": [
                    {"type": "model"},
                    {"type": "item_to_item", "k": 10},
                    {"type": "popularity", "k": 10},
                    {"type": "classical", "model": {"type": "bpr_mf", "factors": 4, "iterations": 5}, "k": 10},
                ],
            }
        },
    ),
    **{
        name: {"model": {"type": name, **options}, "split": LAST}
        for name, options in {
            "ials": {"factors": 8, "regularization": 0.5},
            "bpr_mf": {"factors": 8, "iterations": 20},
            "svd": {"factors": 8},
            "ease": {"l2": 20.0},
            "popularity": {},
            "trending": {},
        }.items()
    },
}
TIME = "2024-06-01T00:00:00Z"
NEW = {
    "user_data": [
        {"user_id": "ann", "categorical": {"job": "nurse"}, "continuous": {"age": 30.0}},
        {"user_id": "bob", "text": {"bio": "I work as a pilot"}},
        {"user_id": "u007"},
    ],
    "interactions": [
        {"user_id": user, "item_id": item, "interaction_type": "buy", "timestamp": TIME}
        for user, item in (("ann", "i001"), ("ann", "i005"), ("u007", "i002"), ("u007", "i003"))
    ],
}
USERS = ["ann", "bob", "u007"]


@pytest.fixture(scope="module", params=CONFIGS)
def fitted(request):
    return Recommender.from_config(CONFIGS[request.param]).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def wider(fitted):
    return fitted.add_users(NEW)


def same(one, other):
    columns = ["user_id", "item_id", "rank"]
    assert one.select(columns).equals(other.select(columns))
    np.testing.assert_allclose(one["score"].to_numpy(), other["score"].to_numpy(), rtol=1e-4, atol=1e-5)


def test_added_users_get_the_lists_and_scores_of_a_request_that_brings_them(fitted, wider):
    for options in ({}, {"exclude_seen": False}):
        same(wider.recommend(USERS, 40, now=0, **options), fitted.recommend(NEW, 40, now=0, **options))
    assert len(wider.dataset.users) == 62 and len(fitted.dataset.users) == 60
    seen = wider.recommend(["u007"], 40)["item_id"].to_pylist()
    assert not {"i002", "i003"} & set(seen)


def test_other_users_and_the_metrics_stay_as_they_are(fitted, wider):
    others = [f"u{n:03d}" for n in range(60) if n != 7]
    same(wider.recommend(others, 5, now=0), fitted.recommend(others, 5, now=0))
    for part in ("validation", "test"):
        assert wider.evaluate(part) == pytest.approx(fitted.metrics[part])


def test_the_wider_model_is_saved_and_loaded(wider, tmp_path):
    loaded = Recommender.load(wider.save(tmp_path / "model"))
    same(loaded.recommend(None, 5, now=0), wider.recommend(None, 5, now=0))
    more = {"user_data": [{"user_id": "eve"}], "interactions": [{"user_id": "eve", "item_id": "i004"}]}
    again = loaded.add_users(more)
    same(again.recommend(["eve"], 5, now=0), wider.recommend(more, 5, now=0))
    assert len(Recommender.load(again.save(tmp_path / "model")).dataset.users) == 63
    with pytest.raises(ModelError, match="added to this model after training"):
        loaded.with_data(small_dataset())


def test_users_can_be_added_in_steps(fitted, wider):
    parts = [{name: [row for row in NEW[name] if row["user_id"] == user] for name in NEW} for user in USERS]
    steps = fitted
    for part in parts:
        steps = steps.add_users(part)
    same(steps.recommend(USERS, 9, now=0), wider.recommend(USERS, 9, now=0))


def test_interactions_given_with_the_records_count_as_well(fitted, wider):
    given = fitted.add_users(NEW["user_data"], interactions=NEW["interactions"])
    same(given.recommend(USERS, 9, now=0), wider.recommend(USERS, 9, now=0))


def test_ids_of_another_type_are_refused(fitted):
    with pytest.raises(DataError, match="the ids of this model"):
        fitted.add_users([{"user_id": 5}])


def test_a_known_user_keeps_the_features_that_the_new_record_lacks():
    fitted = Recommender.from_config(CONFIGS["towers"]).fit(small_dataset(), progress=False)
    wider = fitted.add_users([{"user_id": "u003", "categorical": {"job": "pilot"}}])
    before, after = (one.dataset.users.slice(3, 1).to_pylist()[0] for one in (fitted, wider))
    assert after == {**before, "categorical.job": "pilot"}
    groups = {}
    for name, value in after.items():
        group, _, feature = name.partition(".")
        if feature and value is not None:
            groups.setdefault(group, {})[feature] = value
    expected = fitted.recommend([{"user_id": "u003", **groups}], 9)
    same(wider.recommend(["u003"], 9), expected)


def test_a_list_in_the_record_replaces_the_history_of_a_known_user():
    """What the user had before is still left out of lists."""
    fitted = Recommender.from_config(CONFIGS["ease"]).fit(small_dataset(), progress=False)
    record = {"user_data": [{"user_id": "u003", "temporal": {"bought": ["i001", "i002"]}}]}
    wider = fitted.add_users(record)
    assert set(np.flatnonzero(wider.model.scorer.matrix[3].toarray()[0])) == {1, 2}
    same(wider.recommend(["u003"], 40), fitted.recommend(record, 40))


def test_the_index_of_the_items_stays(tmp_path):
    fitted = Recommender.from_config({**CONFIGS["towers"], "index": FLAT}).fit(small_dataset(), progress=False)
    wider = fitted.add_users(NEW).add_items([{"item_id": "fresh", "categorical": {"tags": ["nurse"]}}])
    found = wider.recommend(USERS, 41, exclude_seen=False)
    assert index_of(found) == FLAT and found["item_id"].to_pylist().count("fresh") == 3
    other = fitted.add_items([{"item_id": "fresh", "categorical": {"tags": ["nurse"]}}]).add_users(NEW)
    same(other.recommend(USERS, 41, exclude_seen=False), found)
    loaded = Recommender.load(wider.save(tmp_path / "model"))
    same(loaded.recommend(USERS, 41, exclude_seen=False), found)


def test_a_wider_blend_is_saved_and_reads_interactions_with_new_items(tmp_path):
    """Classical members know the items of the training only."""
    fitted = Recommender.from_config(CONFIGS["blend"]).fit(small_dataset(), progress=False)
    assert fitted.model.members
    wider = fitted.add_items([{"item_id": "fresh", "categorical": {"tags": ["nurse"]}}])
    events = [*NEW["interactions"], {"user_id": "ann", "item_id": "fresh", "timestamp": TIME}]
    request = {**NEW, "interactions": events}
    both = wider.add_users(request)
    same(both.recommend(USERS, 40), wider.recommend(request, 40))
    assert "fresh" not in both.recommend(["ann"], 41)["item_id"].to_pylist()
    loaded = Recommender.load(both.save(tmp_path / "model"))
    same(loaded.recommend(None, 41), both.recommend(None, 41))
    indexed = both.with_config({"index": FLAT})
    same(indexed.recommend(None, 5), both.recommend(None, 5))
    assert index_of(indexed.recommend(None, 5)) == FLAT


def test_the_command_adds_users_and_items_to_a_saved_model(tmp_path):
    fitted = Recommender.from_config(CONFIGS["sequence"]).fit(small_dataset(), progress=False)
    folder, data = fitted.save(tmp_path / "model"), tmp_path / "new.json"
    items = [{"item_id": "fresh", "categorical": {"tags": ["nurse"]}}, {"item_id": "i003"}]
    event = {"user_id": "ann", "item_id": "fresh", "interaction_type": "buy", "timestamp": TIME}
    document = {**NEW, "item_data": items, "interactions": [*NEW["interactions"], event]}
    data.write_text(json.dumps(document))
    code, out, _ = call("add", "--model-path", folder, "--data", data, "--output", tmp_path / "wider")
    assert code == 0 and "2 new users, 1 known user with interactions, 1 new item" in out
    expected = fitted.add_items(items).add_users({**document, "item_data": []})
    same(Recommender.load(tmp_path / "wider").recommend(USERS, 9), expected.recommend(USERS, 9))
    assert len(Recommender.load(folder).dataset.users) == 60
    data.write_text(json.dumps({"user_data": [{"user_id": "ann", "categorical": {"jobb": "x"}}]}))
    changed = ("add", "--model-path", folder, "--data", data, "--output", tmp_path / "changed")
    assert call(*changed, "--set", "evaluation.k=[3]")[0] == 0
    assert Recommender.load(tmp_path / "changed").config.evaluation.k == [3]
    arguments = ("add", "--model-path", folder, "--data", data, "--output", tmp_path / "other", "--strict")
    code, _, message = call(*arguments)
    assert code == 2 and "categorical.jobb" in message and not (tmp_path / "other").exists()


WITHOUT_RECORDS = [("ann", "i001"), ("u007", "i002"), ("u008", "i003"), ("u007", "i004")]


def written(document, place, form):
    """Return a document as it is, or the path of a file or a folder with it."""
    if form == "document":
        return document
    place.mkdir()
    if form == "folder":
        for part, rows in zip(("users", "interactions"), document.values(), strict=True):
            (place / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return place
    (place / "new.json").write_text(json.dumps(document))
    return place / "new.json"


@pytest.mark.parametrize("form", ["document", "file", "folder"])
def test_known_users_need_no_record_for_their_interactions(fitted, tmp_path, form):
    """As if the data had a record with the id alone; an unknown user without a record is an error."""
    given = {"user_data": [{"user_id": "ann", "categorical": {"job": "nurse"}}]}
    events = [{"user_id": user, "item_id": item, "timestamp": TIME} for user, item in WITHOUT_RECORDS]
    whole = {"user_data": [*given["user_data"], {"user_id": "u007"}, {"user_id": "u008"}], "interactions": events}
    expected = fitted.add(whole)
    document, options = {**given, "interactions": events}, {"now": 0}
    data = written(document, tmp_path / "data", form)
    added = fitted.add(data)
    assert str(added.joined) == str(expected.joined) and "1 new user, 2 known users with inter" in str(added.joined)
    users = ["ann", "u007", "u008"]
    same(added.recommend(users, 9, **options), expected.recommend(users, 9, **options))
    assert added.dataset.users.equals(expected.dataset.users)
    document["interactions"] = [*events, {"user_id": "u07", "item_id": "i001", "timestamp": TIME}]
    with pytest.raises(DataError, match=r"has the id 'u07', and the model knows no such user.*the id alone is enough"):
        fitted.add(written(document, tmp_path / "wrong", form))
    with pytest.raises(DataError, match=r"no record in user_data has the id 'u007'. Add it"):
        fitted.recommend(data)


@pytest.mark.parametrize("users", [[{}], [{"user_id": 5}], [{"user_id": "ann"}, {}]])
def test_records_with_bad_ids_and_interactions_of_known_users_are_errors(users):
    fitted = Recommender.from_config(CONFIGS["popularity"]).fit(small_dataset(), progress=False)
    with pytest.raises(DataError, match=r"/user_data/|/interactions/0/user_id"):
        fitted.add({"user_data": users, "interactions": [{"user_id": "u007", "item_id": "i001"}]})


def test_the_command_refuses_items_that_a_classical_model_cannot_score(tmp_path):
    fitted = Recommender.from_config(CONFIGS["ease"]).fit(small_dataset(), progress=False)
    folder, data = fitted.save(tmp_path / "model"), tmp_path / "new.json"
    data.write_text(json.dumps({"item_data": [{"item_id": "fresh"}]}))
    code, _, message = call("add", "--model-path", folder, "--data", data, "--output", tmp_path / "wider")
    assert code == 2 and "'ease' has no way to score items that it was not fitted on" in message
    with pytest.raises(InputError):
        fitted.add_items([{"item_id": "fresh"}])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_pairs_are_merged_with_those_of_the_known_users(seed, replacing):
    """Equal to a dict of parts by pair. Each record is a known user (0 to 3) or a new one."""
    rng = np.random.default_rng(seed)
    known, parts = Pairs.by_part(*rng.integers(0, [[4], [6], [4]], (3, int(rng.integers(0, 12)))), 4)
    chosen = rng.permutation(4)[: rng.integers(0, 4)]
    rows = rng.permutation(np.concatenate([chosen, np.full(rng.integers(0, 3), -1)])).astype(np.int64)
    dataset = small_dataset(users=4, items=6, each=2)
    ids = pa.array([f"u{row:03d}" if row >= 0 else f"new{n}" for n, row in enumerate(rows)], pa.string())
    added = AddedUsers.of(dataset, Records("user", ids, rows, None, Context()))
    count = int(rng.integers(0, 9)) if len(rows) else 0
    owners, items = np.sort(rng.integers(0, max(1, len(rows)), count)), rng.integers(0, 6, count)
    replaced = rng.random(len(rows)) < 0.5 if replacing else np.zeros(len(rows), bool)
    found = added.pairs(WiderPairs(known, parts), owners, items, replaced)
    expected = {
        (int(user), int(item)): int(mask)
        for user, item, mask in zip(known.owners(), known.items, parts, strict=True)
        if user not in added.rows[replaced]
    }
    for owner, item in zip(owners, items, strict=True):
        pair = int(added.rows[owner]), int(item)
        expected[pair] = expected.get(pair, 0) | 8
    pairs = zip(found.pairs.owners().tolist(), found.pairs.items.tolist(), strict=True)
    assert dict(zip(pairs, found.parts.tolist(), strict=True)) == expected
    assert len(found.pairs.items) == len(expected) and len(found.pairs.offsets) == added.count + 1
    assert added.dataset(dataset).ids("user").take(pa.array(added.rows)).equals(ids)


@pytest.mark.parametrize("name", ["towers", "blend"])
def test_the_index_has_the_present_vectors_of_items_that_are_changed_and_added(name):
    fitted = Recommender.from_config({**CONFIGS[name], "index": FLAT}).fit(small_dataset(), progress=False)
    changed = {"item_id": "i003", "categorical": {"tags": ["pilot"]}, "continuous": {"price": 10.0}}
    new = {"item_id": "fresh", "categorical": {"tags": ["nurse"]}}
    last = {"item_id": "last", "categorical": {"tags": ["baker"]}, "continuous": {"price": 77.0}}
    step = fitted.add_items([new])
    models = [
        step,
        step.add_items([changed], replace_known=True),
        step.add_items([changed, last], replace_known=True),
        fitted.add_items([changed, new], replace_known=True),
        fitted.add_items([changed, new], replace_known=True).add_items([last]),
    ]
    for recommender in models:
        index, vectors = item_index(recommender.model), recommender.model.embeddings("item")
        np.testing.assert_allclose(index.index.store.vectors, vectors[: len(index.ids)], atol=1e-6)
        exact = recommender.with_config({"index": {"type": "exact"}})
        same(recommender.recommend(None, 7), exact.recommend(None, 7))
