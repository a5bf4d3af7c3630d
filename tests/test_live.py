"""What changes while a model serves: its structures against plain ones, and a server that starts again."""

import gc
import random
import tracemalloc
from collections import deque
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from small import small_config, small_dataset

from anyrec.core.config import ServingConfig
from anyrec.data.pairs import Pairs
from anyrec.model.records import joined
from anyrec.recommender import Recommender
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.key_set import BLOCK, RECENT, KeySet
from anyrec.serving.live.lookups import find
from anyrec.serving.live.popularity import Popularity
from anyrec.serving.live.query import Listing, Query
from anyrec.serving.live.record_map import RecordMap
from anyrec.serving.live.replay import Merged
from anyrec.serving.live.served import Served
from anyrec.serving.live.service import Service


@pytest.fixture(scope="module")
def recommender():
    config = small_config(features={"history": {"block": "mean"}})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.mark.parametrize("key", [str, lambda n: 256 * n])
def test_a_record_map_is_a_dict_of_which_each_version_stays_as_it_was(key):
    drawn, records, plain, versions = random.Random(0), RecordMap(), {}, []
    for n in range(200):
        new = {key(drawn.randrange(300)): {"text": {"bio": f"text {n}"}} for _ in range(drawn.randrange(4))}
        removed = [key(drawn.randrange(300)) for _ in range(drawn.randrange(3))]
        records = records.changed(new, removed)
        plain = {one: record for one, record in {**plain, **new}.items() if one not in removed}
        versions.append((records, plain))
    for version, expected in versions:
        assert dict(version) == expected and len(version) == len(expected)
        assert all((key(n) in version) == (key(n) in expected) for n in range(300))
    assert RecordMap().changed(plain) == records and records.get("none") is None and "none" not in records


def memory_of(change):
    """Bytes that remain of what a function makes."""
    tracemalloc.start()
    made = change()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return made, grown


@pytest.mark.parametrize("key", [str, lambda n: 256 * n])
def test_a_change_copies_a_small_part_of_a_record_map(key):
    records, whole = memory_of(lambda: RecordMap().changed({key(n): {"n": n} for n in range(20_000)}))
    _, changed = memory_of(lambda: records.changed({key(1): {}}))
    assert changed < whole / 50


def test_a_key_set_is_a_set_with_few_blocks():
    drawn, keys, plain = np.random.default_rng(0), KeySet("S16"), set()
    for size in [*drawn.integers(1, 400, 100), 3 * RECENT, *drawn.integers(1, 400, 50)]:
        some = list({drawn.bytes(14) + bytes(2) for _ in range(size)})  # NumPy's texts leave NULs at the end out
        assert keys.has(some) == [one in plain for one in some]
        keys.add(some)
        plain.update(some)
        assert all(keys.has(some)) and len(keys) == len(plain)
    sizes = [len(block) for block in keys.blocks()][:-1]
    assert all(2 * b <= a for a, b in pairwise(sizes)) and len(sizes) < 8
    assert all((block[:-1] < block[1:]).all() for block in [*keys.blocks()][:-1])
    assert sum(block.nbytes for block in keys.blocks()) == 16 * len(plain)


def test_large_blocks_of_keys_are_not_merged():
    keys = KeySet("u8")
    for n in range(3):
        keys.add_block(np.arange(n, 3 * BLOCK, 3, dtype=np.uint64))
    assert [len(block) for block in keys.blocks()] == [BLOCK] * 3 + [0]
    assert keys.has([0, 5, 3 * BLOCK]) == [True, True, False]


def test_histories_are_the_latest_events_of_each_user():
    drawn, histories, plain = random.Random(0), Histories(7), {}
    for n in range(3000):
        user = drawn.randrange(20)
        if drawn.random() < 0.02:
            histories.forget(user)
            plain.pop(user, None)
            continue
        event = {"user_id": user, "item_id": f"i{drawn.randrange(50)}"}
        event |= {"interaction_type": drawn.choice(["view", "buy"])} if drawn.random() < 0.7 else {}
        figures = {"timestamp": n + 0.5, "rating": 4.1, "label": drawn.randrange(2), "weight": 0.1}
        event |= {name: value for name, value in figures.items() if drawn.random() < 0.7}
        histories.add([{**event, "event_id": str(n), "value": 1.0}])
        plain.setdefault(user, deque(maxlen=7)).append(event)
    assert len(histories) == len(plain) and None not in histories
    assert all(histories.of(user) == list(plain.get(user, ())) for user in [*range(21), None])


def test_the_memory_of_histories_does_not_grow_with_the_events_of_a_user():
    histories = Histories(10)

    def add():
        for n in range(50_000):
            histories.add([{"user_id": n % 20, "item_id": n % 100, "timestamp": n}])
            if n % 1000 == 0:
                histories.forget(n // 1000 % 20)

    assert memory_of(add)[1] < 100_000


def test_popularity_counts_distinct_pairs_that_the_training_does_not_have(recommender):
    served, drawn, popularity, pairs = Served.of(recommender), random.Random(0), Popularity(), set()
    ids = {side: [*recommender.dataset.ids(side).to_pylist(), "new1", "new2"] for side in ("user", "item")}
    table = recommender.dataset.interactions
    trained = set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    other = Served.of(replace_seen(recommender))
    for n in range(60):
        some = [(drawn.choice(ids["user"]), drawn.choice(ids["item"])) for _ in range(drawn.randrange(90))]
        popularity.add([{"user_id": user, "item_id": item} for user, item in some])
        pairs |= set(some)
        if n % 3 == 0:
            version, had = (served, trained) if n % 2 else (other, set())
            items = [item for _, item in pairs - had]
            assert popularity.since(version) == {item: items.count(item) for item in items}


def replace_seen(recommender):
    """Return the recommender as if its users had nothing in training."""
    empty = Pairs.of(np.zeros(0, np.int64), np.zeros(0, np.int64), len(recommender.dataset.users))
    parts = replace(recommender.parts, model=replace(recommender.model, seen=empty))
    return Recommender(recommender.config, recommender.registry, parts=parts)


def test_events_and_records_are_no_objects_that_garbage_collection_visits(recommender):
    """A full collection stops all threads, and takes as long as there are objects."""
    service = Service(recommender, ServingConfig())
    users, items = (recommender.dataset.ids(side).to_pylist() for side in ("user", "item"))

    def put(first, count):
        record = {"text": {"bio": "I am a baker"}, "categorical": {"job": "baker"}}
        service.put_users({f"{first}-{n}": record for n in range(count)})
        places = [{"user_id": users[n % 60], "item_id": items[n % 37]} for n in range(count)]
        service.receive([{"event_id": f"{first}-{n}", **place} for n, place in enumerate(places)])

    def objects(*change):
        put(*change)
        gc.collect()
        return len(gc.get_objects())

    objects("a", 100)
    assert objects("c", 5000) - objects("b", 100) < 500


def test_appended_records_copy_few_records_and_leave_few_chunks():
    table = pa.table({"item_id": pa.array(["a", "b"]), "text.title": pa.array(["A", "B"]), "x": [[1], None]})
    expected = table.to_pylist()
    for n in range(300):
        new = [{"item_id": f"i{n}", "text.title": None if n % 7 else f"title {n}", "x": [n, n]}]
        table, expected = joined(table, pa.Table.from_pylist(new)), expected + new
        assert table.column("item_id").num_chunks == 1 and table.column("text.title").num_chunks <= 9
    assert table.to_pylist() == expected


def test_users_are_found_as_by_a_look_at_each(recommender):
    service, jobs, expected = Service(recommender, ServingConfig()), ["baker", "pilot"], {}
    for user, record in zip(recommender.dataset.users["user_id"].to_pylist(), records_of(recommender), strict=True):
        expected[user] = f"{user} {record}"
    drawn = random.Random(0)
    for n in range(80):
        record = {"text": {"bio": f"I paint {n} Zebras"}, "categorical": {"job": drawn.choice(jobs)}}
        user = f"u{drawn.randrange(120):03d}"
        service.put_users({user: record})
        expected[user] = f"{user} {record['text']['bio']} {record['categorical']['job']}"
        if n % 5 == 0:
            for words in ("", "zebra", "ZEBRAS bak", "u05", "1 paint", "none"):
                k, offset = drawn.randrange(1, 30), drawn.randrange(20)
                hits = sorted(
                    one for one, text in expected.items() if all(w in text.lower() for w in words.lower().split())
                )
                found = find(service.served, "user", words, k, offset)
                assert [one["user_id"] for one in found["users"]] == hits[offset : offset + k]
                assert found["total"] == len(hits)


def records_of(recommender):
    served, ids = Served.of(recommender), recommender.dataset.ids("user").to_pylist()
    for record in served.records("user", ids):
        values = [value for group in ("text", "categorical") for value in record.get(group, {}).values()]
        yield " ".join(str(one) for value in values for one in (value if isinstance(value, list) else [value]))


def test_added_items_are_found_in_the_order_of_ids(recommender):
    service = Service(recommender, ServingConfig())
    service.put_items({"i0005": {"text": {"title": "between"}}, "a": {"text": {"title": "first"}}})
    found = [one["item_id"] for one in find(service.served, "item", "", 50, 0)["items"]]
    assert found == sorted(found) and {"i0005", "a"} < set(found)


def test_another_version_has_the_records_of_the_present_one_and_no_former_ones(recommender, tmp_path):
    folder = recommender.save(tmp_path / "model")
    service = Service(Recommender.load(folder), ServingConfig())
    service.put_users({"ann": {}, "bob": {}})
    service.remove_items(["i001", "i002"])
    service.reload(folder)
    service.remove_user("bob")
    service.put_users({"cid": {}})
    service.put_items({"i001": {"text": {"title": "a thing"}}, "new": {}})
    for _ in range(2):
        service.rollback()
        assert dict(service.served.users) == {"ann": {}, "cid": {}} and service.served.removed == {"i002"}
        listed = service.lists([Query(k=50)])[0]
        assert {"i001", "new"} < {one.item_id for one in listed.items} and len(listed.items) == 40


# Starting again


def state(service):
    """What a client can see: lists, records, histories and counts."""
    users = [*service.served.recommender.dataset.ids("user").to_pylist()[:5], *(f"new{n}" for n in range(6))]
    lists = service.lists([Query(user_id=user, k=60, include_seen=n % 2 == 0) for n, user in enumerate(users)])
    assert all(isinstance(one, Listing) for one in lists)
    return (
        [[(item.item_id, item.rank) for item in one.items] for one in lists],
        [item.score for one in lists for item in one.items],
        [service.histories.of(user) for user in users],
        dict(service.served.users),
        dict(service.served.items),
        service.served.removed,
        dict(service.popular(service.served, 100)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_starts_again_is_as_it_was(recommender, tmp_path, seed):
    drawn = random.Random(seed)
    service = Service(recommender, ServingConfig(), tmp_path)
    items, users = [f"i{n:03d}" for n in range(5)], [f"u{n:03d}" for n in range(5)]
    for n in range(60):
        item, user = f"new{drawn.randrange(6)}", f"new{drawn.randrange(6)}"
        match drawn.randrange(6):
            case 0 | 1:
                kind = drawn.choice([n, f"text {n}"])  # of a feature that the model does not know
                known = {"text": {"title": "A thing for a baker"}, "continuous": {"price": float(n)}}
                service.put_items({item: {**known, "more": {"kind": kind}}})
                items.append(item)
            case 2:
                record = {"text": {"bio": f"I am number {n}"}, "temporal": {"history": drawn.sample(items, 2)}}
                service.put_users({user: record if drawn.random() < 0.5 else {}})
                users.append(user)
            case 3:
                gone = drawn.choice(items)
                if gone not in service.served.removed:
                    service.remove_items([gone])
            case 4:
                service.remove_user(drawn.choice(users))
            case _:
                some = [{"event_id": f"{n}-{m}", "user_id": drawn.choice(users), "item_id": items[m]} for m in range(3)]
                service.receive([{**event, "user": {}} for event in some])
    before = state(service)
    service.close()
    again = Service(recommender, ServingConfig(), tmp_path)
    after = state(again)
    assert [*after[:1], *after[2:]] == [*before[:1], *before[2:]] and after[1] == pytest.approx(before[1], abs=1e-5)
    logged = [event["event_id"] for event in read_events(tmp_path)]
    repeated = [{"event_id": one, "user_id": "u001", "item_id": "i001"} for one in logged]
    assert logged and again.receive(repeated).accepted == 0
    again.close()


def test_a_start_computes_the_vectors_of_all_added_items_at_once(recommender, tmp_path, monkeypatch):
    service = Service(recommender, ServingConfig(), tmp_path)
    for n in range(30):
        service.put_items({f"new{n % 20}": {"text": {"title": f"A thing {n}"}}})
    service.close()
    calls, add_items = [], Recommender.add_items
    monkeypatch.setattr(
        Recommender,
        "add_items",
        lambda self, items, **options: calls.append(items) or add_items(self, items, **options),
    )
    Service(recommender, ServingConfig(), tmp_path).close()
    assert [len(one.ids) for one in calls] == [20]


def test_changes_of_many_records_are_merged_in_blocks():
    changes = [{"items": [[f"i{n % 5000}", {"n": n}]]} for n in range(9000)]
    blocks = list(Merged.of([*changes, {"removed_items": ["i1", "i2"]}, {"items": [["i2", {}]]}]).blocks())
    assert [len(one.get("items", ())) for one in blocks] == [4096, 904, 0]
    records = dict(pair for one in blocks for pair in one.get("items", ()))
    assert records == {f"i{n % 5000}": {"n": n} for n in range(9000)} | {"i2": {}}
    assert blocks[-1]["removed_items"] == ["i1"]
