"""The log of a server is a dataset: all files in order, the latest records, nothing of users who were forgotten."""

import datetime as dt
import json
import random
import shutil

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_config, small_dataset

from anyrec.core.config import Config, DataConfig, ServingConfig
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.sources import log_files
from anyrec.recommender import Recommender
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.service import Service

SMALL = ServingConfig.model_validate({"events": {"segment_bytes": 1024}})  # the least: files follow one another soon


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The training data as a folder of Parquet files."""
    import pyarrow.parquet as pq

    folder, small = tmp_path_factory.mktemp("data"), small_dataset()
    for part in ("users", "items", "interactions"):
        pq.write_table(getattr(small, part), folder / f"{part}.parquet")
    return folder


@pytest.fixture(scope="module")
def recommender(data):
    return Recommender.from_config(small_config(name="shop")).fit(Dataset.read(data), progress=False)


def event(number, user, item, **more):
    return {
        "event_id": f"event {number}",
        "user_id": user,
        "item_id": item,
        "timestamp": 1_790_000_000 + number,
        **more,
    }


def thing(price, *tags):
    return {
        "continuous": {"price": float(price)},
        "categorical": {"tags": [*tags, "all"]},
        "text": {"title": "A thing"},
    }


def rows(dataset, part):
    table = getattr(dataset, part)
    return table.select(sorted(table.column_names)).to_pylist()


def by_id(dataset, side):
    return {row.pop(f"{side}_id"): {k: v for k, v in row.items() if v is not None} for row in rows(dataset, f"{side}s")}


# What the log holds


def reference(operations):
    """A plain implementation: the interactions, and the records of users and items."""
    events, users, items, removed, had = [], {}, {}, set(), set()

    def replaces(user, record):
        """A record without a value replaces none, of the training or the log."""
        return record or not (user.startswith("u") or users.get(user) is not None)

    for kind, *args in operations:
        if kind == "event":
            number, user, item, record = args
            if number not in had:
                had.add(number)
                events.append((user, item, number))
                users.setdefault(user, None)
                if record is not None and replaces(user, record):
                    users[user] = record
        elif kind == "put item":
            items[args[0]] = args[1]
            removed.discard(args[0])
        elif kind == "put user" and replaces(*args):
            users[args[0]] = args[1]
        elif kind == "remove":
            removed.add(args[0])
        elif kind == "forget" and (args[0] in users or any(args[0] == one[0] for one in events)):
            users.pop(args[0], None)
            events = [one for one in events if one[0] != args[0]]
    bought = {item for _, item, _ in events}
    kept = {item: record for item, record in items.items() if item not in removed or item in bought}
    return events, {user: one for user, one in users.items() if one is not None}, kept


def apply(service, operations):
    """Let a server carry the operations out."""
    for kind, *args in operations:
        if kind == "event":
            number, user, item, record = args
            service.receive([event(number, user, item) | ({} if record is None else {"user": record})])
        elif kind == "put item":
            service.put_items({args[0]: args[1]})
        elif kind == "put user":
            service.put_users({args[0]: args[1]})
        elif kind == "remove":
            service.remove_items([args[0]])
        else:
            service.remove_user(args[0])


USERS, NEW = st.sampled_from(["u000", "u001", "ann", "bob"]), st.sampled_from(["i000", "i001", "new1", "new2"])
PRICES = st.builds(thing, st.integers(1, 9), st.sampled_from(["pilot", "baker"]))
JOBS = st.sampled_from([{}, {"categorical": {"job": "pilot"}}, {"categorical": {"job": "baker"}}])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, 30), USERS, st.sampled_from(["i000", "i001", "new1"]), JOBS),
        st.tuples(st.just("event"), st.integers(0, 30), st.just("u002"), st.just("i003"), st.none()),
        st.tuples(st.just("put item"), NEW, PRICES),
        st.tuples(st.just("put user"), USERS, JOBS),
        st.tuples(st.just("remove"), st.sampled_from(["i000", "i001"])),
        st.tuples(st.just("forget"), USERS),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(OPERATIONS)
def test_a_log_holds_what_a_plain_implementation_says(recommender, tmp_path_factory, operations):
    folder = tmp_path_factory.mktemp("log")
    operations = [("put item", "new1", thing(3, "nurse")), ("event", 99, "u003", "i005", None), *operations]
    service = Service(recommender, SMALL, folder)
    try:
        apply(service, operations)
        read = Dataset.read(folder)  # the server has not closed it
    finally:
        service.close()
    events, users, items = reference(operations)
    found = [
        (row["user_id"], row["item_id"], int(row["timestamp"].timestamp()) - 1_790_000_000)
        for row in rows(read, "interactions")
    ]
    assert found == events
    nobody = {user for user, _, _ in events} - users.keys()
    flat = {user: {"categorical.job": one["categorical"]["job"]} if one else {} for user, one in users.items()}
    assert by_id(read, "user") == flat | {user: {} for user in nobody}
    expected = {
        item: {
            "continuous.price": one["continuous"]["price"],
            "categorical.tags": one["categorical"]["tags"],
            "text.title": "A thing",
        }
        for item, one in items.items()
    }
    assert by_id(read, "item") == expected | {item: {} for _, item, _ in events if item not in expected}


def test_each_event_is_read_once_and_an_incomplete_line_not_at_all(recommender, tmp_path):
    service = Service(recommender, SMALL, tmp_path / "log")
    service.receive([event(n, "u001", f"i{n % 40:03d}") for n in range(90)])
    service.receive([event(n, "u002", f"i{n % 40:03d}") for n in range(80, 120)])
    files = sorted((tmp_path / "log").glob("events-*.jsonl"))
    assert len(files) == 2
    shutil.copy(files[0], tmp_path / "log" / "events-000009.jsonl")  # by mistake, for example
    for folder in (tmp_path / "log", tmp_path / "log" / "records"):
        with max(folder.glob("events-*.jsonl")).open("a") as file:
            file.write('{"event_id": "torn", "user_id": "u0')
    found = Dataset.read(tmp_path / "log").interactions
    service.close()
    assert found["user_id"].to_pylist() == ["u001"] * 90 + ["u002"] * 30
    assert found["item_id"].to_pylist() == [f"i{n % 40:03d}" for n in range(120)]
    parts = [Dataset.read(file).interactions["item_id"].to_pylist() for file in files]
    assert [*parts[0], *parts[1]] == found["item_id"].to_pylist()


@settings(max_examples=30)
@given(st.lists(st.text("ab\u00e9", max_size=3).map(lambda end: f"123456789{end}98765432"), max_size=40))
def test_different_ids_with_the_same_beginning_and_end_are_different_events(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("log")
    lines = [{**event(n, n, n), "event_id": one} for n, one in enumerate([*ids, "first"])]
    write(folder, lines)
    first = {one["event_id"]: one["user_id"] for one in reversed(lines)}
    assert Dataset.read(folder).interactions["user_id"].to_pylist() == sorted(first.values())


def write(folder, events, changes=(), number=1):
    """Write files as a server does."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for place, lines in ((folder, events), (folder / "records", changes)):
        text = b"".join(msgspec.json.encode(one) + b"\n" for one in lines)
        (place / f"events-{number:06d}.jsonl").write_bytes(text)
    return folder


def test_logs_of_programs_and_of_earlier_versions_are_read(tmp_path):
    iso = {**event(1, 1, 7), "timestamp": "2026-11-27T10:00:00+01:00"}
    early = {"event_id": "2", "user_id": 1, "item_id": 8, "timestamp": 1_790_000_000, "interaction_type": "buy"}
    later = {**event(3, 2, 8), "received": 1_790_000_009.5}
    lines = [iso, early, later]
    gone = [{"users": [[2, {}], [3, {}]]}, {"removed_users": [1]}, {"removed_users": [2], "time": 1_790_000_009.5}]
    found = Dataset.read(write(tmp_path / "old", lines, gone[:2]))
    utc = [dt.datetime(2026, 11, 27, 9, tzinfo=dt.timezone.utc)]
    utc += [dt.datetime.fromtimestamp(n, dt.timezone.utc) for n in (1_790_000_000, 1_790_000_003)]
    assert found.interactions["timestamp"].to_pylist() == utc
    assert found.ids("user").to_pylist() == [2, 3, 1] and found.ids("item").to_pylist() == [7, 8]
    found = Dataset.read(write(tmp_path / "new", lines, gone))
    assert found.interactions["user_id"].to_pylist() == [1, 1] and sorted(found.ids("user").to_pylist()) == [1, 3]


def test_all_of_an_event_is_read_as_in_a_table_of_the_same_lines(tmp_path, monkeypatch):
    draw, lines = random.Random(0), []
    contexts = [{"screen": 6}, {"screen": 6.5, "from": "mail"}, {"day": "2026-11-27", "tags": ["a", "b"]}, {}, None]
    for n in range(999):
        more = {
            "rating": draw.choice([1, 4.5]),
            "label": n % 2,
            "weight": draw.random(),
            "context": draw.choice(contexts),
        }
        more = {name: value for name, value in more.items() if draw.random() < 0.5}
        time = draw.uniform(0, 1e10) if n % 2 else draw.randrange(10**10)
        lines.append({**event(n, n % 90, n % 70), **more, "timestamp": time})
    table = tmp_path / "table"
    table.mkdir()
    (table / "interactions.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    plain = Dataset.read(table, DataConfig(unknown_ids="keep"))
    log = write(tmp_path / "log", lines)
    assert Dataset.read(log).fingerprint() == plain.fingerprint()
    monkeypatch.setattr(log_files, "PIECE", 5000)
    assert Dataset.read(log).fingerprint() == plain.fingerprint()
    with (log / "events-000001.jsonl").open("ab") as file:  # a time as text: the whole piece is read line by line
        file.write(msgspec.json.encode({**event(999, 1, 1), "timestamp": "2026-11-27"}) + b"\n")
    found = Dataset.read(log)
    assert found.interactions.slice(0, 999).equals(Dataset.read(write(log, lines)).interactions)
    sources = {"interactions": [{"path": str(log)}]}
    assert Dataset.from_sources({"data": {"sources": sources}}).fingerprint() == Dataset.read(log).fingerprint()
    columns = {"user_id": "user_id", "item_id": "item_id", "context.screen": "context.screen"}
    sources["interactions"][0]["columns"] = columns
    some = Dataset.from_sources({"data": {"sources": sources}}).interactions
    assert some.column_names == ["user_id", "item_id", "context.screen"]
    assert some["context.screen"].equals(plain.interactions["context.screen"])


def test_the_lines_of_a_log_are_the_same_in_blocks_of_any_size(tmp_path, monkeypatch):
    lines = [event(n, n % 7, n % 5) for n in range(300)]
    write(tmp_path, lines[:200])
    write(tmp_path, lines[200:], number=2)
    for block in (1 << 20, 500, 1):
        monkeypatch.setattr(log_files, "BLOCK", block)
        assert list(read_events(tmp_path)) == lines
    with (tmp_path / "events-000001.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    with pytest.raises(DataError, match=r"events-000001.jsonl, line 201: this is no JSON object"):
        list(read_events(tmp_path))


def test_contexts_of_several_types_are_left_out_with_a_note(tmp_path, monkeypatch):
    contexts = [{"a": 1, "b": 1, "": 1}, {"a": 2, "b": 2}, {"a": 3, "b": "3", "c": None}]
    write(tmp_path, [{**event(n, 1, 1), "context": one} for n, one in enumerate(contexts)])
    for piece in (1 << 26, 1):
        monkeypatch.setattr(log_files, "PIECE", piece)
        found = Dataset.read(tmp_path)
        assert found.interactions.column_names[3:] == ["context.a"]
        assert found.interactions["context.a"].to_pylist() == [1, 2, 3]
        assert any("Contexts of events" in note and "'b'" in note and "''" in note for note in found.notes)


def test_faults_name_the_line(tmp_path):
    folder = write(tmp_path, [event(n, "a", "b") for n in range(3)])
    write(folder, [event(8, "a", "b"), event(8, "a", "b"), event(9, "a", 5)], number=2)
    with (folder / "events-000002.jsonl").open("a") as file:
        file.write("damaged\n")
    with pytest.raises(DataError) as error:
        Dataset.read(folder)
    where = [fault.where for fault in error.value.faults]
    assert "events-000002.jsonl line 4" in where and "events-000002.jsonl line 3, column 'item_id'" in where
    (folder / "records" / "events-000001.jsonl").write_text("damaged\n")
    with pytest.raises(DataError, match="line 1: this is no JSON object"):
        Dataset.read(folder)


def test_long_logs_are_read_piece_by_piece_into_files(tmp_path, monkeypatch):
    lines = [
        event(n, f"u{n % 70}", f"i{n % 30}", received=1_790_000_000 + n, interaction_type="view") for n in range(5000)
    ]
    changes = [{"removed_users": ["u3"], "time": 1_790_002_000.0}]
    folder = write(tmp_path, lines[:2000], changes)
    write(folder, [*lines[1990:], lines[0]], number=2)
    whole = Dataset.read(folder)
    assert len(whole.interactions) == 5000 - 29 and whole.scratch is None
    monkeypatch.setattr(log_files, "PIECE", 20_000)
    on_disk = Dataset.read(folder, DataConfig(memory_limit="1MB"))
    assert on_disk.scratch is not None and on_disk.fingerprint() == whole.fingerprint()
    assert Dataset.read(folder, DataConfig(memory_limit="1GB")).fingerprint() == whole.fingerprint()


# Wherever data is taken


@pytest.fixture(scope="module")
def shop(recommender, data, tmp_path_factory):
    """A model that served, with its log: new and changed records, events, and what was removed."""
    folder = tmp_path_factory.mktemp("models") / "shop"
    recommender.save(folder / "model")
    log = folder / "events"
    service = Service(recommender, SMALL, log)
    service.put_items({"new": thing(3, "pilot"), "i001": thing(4, "baker"), "gone": thing(5), "had": thing(6)})
    service.put_users({"ann": {"categorical": {"job": "pilot"}}, "u001": {"categorical": {"job": "clerk"}}, "eve": {}})
    service.receive([event(n, "ann", item) for n, item in enumerate(("new", "i001", "had", "i002"))])
    service.receive([event(9, "eve", "i002"), event(10, "u002", "new", interaction_type="view")])
    service.remove_items(["gone", "had", "i004"])
    service.remove_user("eve")
    service.close()
    (log / "exposures").mkdir()
    (log / "exposures" / "events-000001.jsonl").write_text('{"user_id": "u001", "items": ["i001"]}\n')
    return folder


def test_every_command_takes_the_folder(shop, data, tmp_path):
    log = shop / "events"
    for command in ("validate", "doctor", "describe"):
        code, text, notes = call(command, log)
        assert code == 0 and "event_id" not in notes and "received" not in notes
    code, text, notes = call("validate", data, log)
    assert code == 0 and "valid: 61 users, 42 items, 485 interactions" in text
    assert "Items that were removed from the server, which does not list them: 3. Those with events (1) stay" in notes
    config = tmp_path / "cfg.json"
    config.write_text(json.dumps(small_config(name="again", output_dir=str(tmp_path))))
    code, text, _ = call("train", "--config", config, "--data", data, "--data", log, "--print-config")
    assert code == 0 and json.loads(text)["name"] == "again"
    code, text, _ = call("init", log)
    assert code == 0 and json.loads(text)["name"] == "events"


def test_an_update_learns_from_the_log_and_knows_what_was_put(shop, tmp_path):
    code, text, notes = call("update", "--model_path", shop, "--data", shop / "events", "--output", tmp_path / "newer")
    assert code == 0 and "does not know" not in notes and "event_id" not in notes, notes
    assert "1 new user, 1 known user with interactions, 2 new items, 1 changed item" in text
    newer = Recommender.load(tmp_path / "newer")
    assert newer.dataset.ids("item").to_pylist()[-2:] == ["new", "had"]
    row = newer.dataset.items.filter(pa.compute.equal(newer.dataset.items["item_id"], "i001"))
    assert row["continuous.price"].to_pylist() == [4.0]


def test_the_log_is_a_table_of_data_sources(shop, data):
    log = str(shop / "events")
    sources = {
        "users": [{"path": log}, {"path": str(data / "users.parquet")}],
        "items": [{"path": log}, {"path": str(data / "items.parquet")}],
        "interactions": [{"path": str(data / "interactions.parquet")}, {"path": log}],
    }
    found = Dataset.from_sources({"data": {"sources": sources}})
    assert len(found.interactions) == 480 + 5 and len(found.items) == 42 and len(found.users) == 61
    prices = dict(zip(found.ids("item").to_pylist(), found.items["continuous.price"].to_pylist(), strict=True))
    assert (prices["i001"], prices["new"], prices["had"]) == (4.0, 3.0, 6.0) and "gone" not in prices
    columns = {"user_id": "user_id", "item_id": "item_id", "received": "timestamp", "event_id": "context.event"}
    alone = Dataset.from_sources({"data": {"sources": {"interactions": [{"path": log, "columns": columns}]}}})
    assert alone.interactions["context.event"].to_pylist() == [f"event {n}" for n in (0, 1, 2, 3, 10)]
    assert found.versions[log].startswith("events ")


def test_a_log_with_ids_of_two_types_is_refused(tmp_path):
    write(tmp_path, [event(1, 5, "b")], [{"users": [["ann", {}]]}])
    with pytest.raises(DataError, match="the ids of users are whole numbers here, and texts in"):
        Dataset.read(tmp_path)


# The next version of the model


@pytest.fixture(scope="module")
def retrained(shop, data):
    return Recommender.from_config(small_config(name="next")).fit(Dataset.read([data, shop / "events"]), progress=False)


def state(service):
    served = service.served
    items = served.records("item", ["i001", "new", "had"])
    return (
        items,
        served.removed,
        dict(service.popular(service.served, 50)),
        service.histories.of("ann"),
        sorted(served.users),
    )


def test_after_training_on_the_log_nothing_counts_twice_and_nothing_is_added_again(
    shop, retrained, tmp_path, monkeypatch
):
    log = shutil.copytree(shop / "events", tmp_path / "events")
    folder = retrained.save(tmp_path / "next")
    service = Service(Recommender.load(shop / "model"), SMALL, log)
    counts = dict(service.popular(service.served, 50))
    added, add_items = [], Recommender.add_items

    def spy(self, records, **how):
        added.extend(records.ids.to_pylist())
        return add_items(self, records, **how)

    monkeypatch.setattr(Recommender, "add_items", spy)
    service.reload(folder)
    assert added == ["gone"]  # it was put and removed, without events; all other records are those of the training
    items, removed, popular, history, users = state(service)
    assert [one["continuous"]["price"] for one in items] == [4.0, 3.0, 6.0]
    assert removed == {"gone", "had", "i004"} and popular == counts and users == ["ann", "u001"]
    assert len(history) == 4 and len(service.histories.of("u002")) == 1
    loaded = Recommender.load(folder)
    for user in ("ann", "u002", "u001"):
        found = listed(service, user)
        left = [one for one in loaded.recommend([user], 60)["item_id"].to_pylist() if one not in removed]
        assert found == left
    service.put_items({"new": thing(8, "clerk"), "i001": thing(9, "clerk")})
    service.put_users({"ann": {"categorical": {"job": "baker"}}})
    service.remove_user("u001")
    service.reload(folder)  # what was put later than the training counts
    assert [one["continuous"]["price"] for one in service.served.records("item", ["i001", "new"])] == [9.0, 8.0]
    assert service.served.users["ann"] == {"categorical": {"job": "baker"}} and "u001" not in service.served.users
    before = state(service)
    service.rollback()
    assert [one["continuous"]["price"] for one in service.served.records("item", ["i001", "new"])] == [9.0, 8.0]
    service.close()
    again = Service(loaded, SMALL, log)
    assert state(again) == before
    again.close()
    found = by_id(Dataset.read(log), "item")
    assert (found["new"]["continuous.price"], found["i001"]["continuous.price"]) == (8.0, 9.0)


def listed(service, user):
    from anyrec.serving.live.query import Query

    (found,) = service.lists([Query(user_id=user, k=60)])
    return [one.item_id for one in found.items]


def test_a_record_that_is_put_again_computes_nothing(recommender):
    service = Service(recommender, SMALL)
    record = service.served.records("item", ["i003"])[0]
    service.put_items({"i003": record})
    assert service.served.recommender is recommender
    service.put_items({"i003": record | {"text": {"title": "Another"}}})
    assert service.served.recommender is not recommender


# Several data sets


def document(folder, name, users=(), items=(), interactions=()):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"user_data": [*users], "item_data": [*items], "interactions": [*interactions]}))
    return path


def test_later_records_replace_earlier_ones_as_a_whole(tmp_path):
    red, blue = {"categorical": {"colour": "red"}}, {"categorical": {"colour": ["blue", "green"]}}
    had = [{"user_id": "u", "item_id": "a"}, {"user_id": "v", "item_id": "b"}]
    user = {"user_id": "u", "text": {"bio": "first"}, "continuous": {"age": 3}}
    first = document(
        tmp_path,
        "1",
        [user, {"user_id": "v", "continuous": {"age": 4}}],
        [{"item_id": one, **red} for one in "ab"],
        had,
    )
    changed = {"item_id": "b", "text": {"title": "new"}}
    users = [{"user_id": "u", "text": {"bio": "second"}}, {"user_id": "v"}]
    second = document(
        tmp_path,
        "2",
        users,
        [changed, {"item_id": "c", **blue}],
        had[:1],
    )
    found = Dataset.read([first, second])
    assert by_id(found, "user") == {"u": {"text.bio": "second"}, "v": {"continuous.age": 4.0}}
    assert by_id(found, "item") == {
        "a": {"categorical.colour": ["red"]},
        "b": {"text.title": "new"},
        "c": {"categorical.colour": ["blue", "green"]},
    }
    assert found.interactions["item_id"].to_pylist() == ["a", "b", "a"]
    assert any("Users with records in several data sets: 2. The last record counts." in note for note in found.notes)
    assert Dataset.read([first]).fingerprint() == Dataset.read(first).fingerprint()


def test_faults_of_several_data_sets_are_reported_together_with_their_names(tmp_path):
    had = [{"user_id": "u", "item_id": "a"}]
    first = document(tmp_path, "1", [{"user_id": "u"}, {"user_id": "u"}], [{"item_id": "a"}], had)
    second = document(tmp_path, "2", [], [{"item_id": "b", "text": 5}], [{"user_id": "u", "item_id": "x"}])
    with pytest.raises(DataError) as error:
        Dataset.read([first, second])
    where = sorted(fault.where for fault in error.value.faults)
    assert where == [
        f"{first}: /user_data/1/user_id",
        f"{second}: /interactions/0/item_id",
        f"{second}: /item_data/0/text",
    ]
    numbers = document(tmp_path, "3", [], [{"item_id": 5}], had)
    with pytest.raises(DataError, match="ids of items are whole numbers here, and texts in"):
        Dataset.read([first, numbers])
    with pytest.raises(DataError, match="no path was given"):
        Dataset.read([])


def test_pictures_of_several_folders_need_one_root(tmp_path):
    had = [{"user_id": "u", "item_id": "a"}]
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        item = {"item_id": name[0], "image": {"photo": "a.jpg"}}
        paths.append(document(tmp_path / name, "data", [{"user_id": "u"}], [{"item_id": "a"}, item], had))
    with pytest.raises(DataError, match="relative to several folders"):
        Dataset.read(paths)
    assert len(Dataset.read(paths, DataConfig(image_root=str(tmp_path))).items) == 3


def test_events_with_removed_items_that_no_data_set_has_are_left_out(tmp_path):
    first = document(tmp_path, "1", [{"user_id": "u"}], [{"item_id": "a"}], [{"user_id": "u", "item_id": "a"}])
    lines = [event(1, "u", "a"), event(2, "u", "old"), event(3, "u", "a")]
    log = write(tmp_path / "log", lines, [{"removed_items": ["old", "a"]}])
    found = Dataset.read([first, log])
    assert found.interactions["item_id"].to_pylist() == ["a", "a", "a"]
    assert any("events that are left out: 1" in note for note in found.notes)
    write(tmp_path / "log", lines)
    with pytest.raises(DataError, match="no record in item_data has the id 'old'"):
        Dataset.read([first, log])


def test_processes_that_read_a_growing_log_differently_stop(shop, data, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from anyrec.cli import run

    monkeypatch.setattr(
        run, "processes", lambda: SimpleNamespace(alone=False, agree=lambda own: "of the first process")
    )
    config = Config.model_validate(small_config(output_dir=str(tmp_path)))
    with pytest.raises(DataError, match="the processes of the training have read different data"):
        run.complete_config(run.RunInputs(config, [data, shop / "events"]))


def test_a_bare_record_replaces_none(recommender, tmp_path):
    had = [{"user_id": "u", "item_id": "a"}]
    item = {"item_id": "a", "text": {"title": "T"}}
    first = document(tmp_path, "1", [{"user_id": "u"}], [item], had)
    second = document(tmp_path, "2", [], [{"item_id": "a"}], had)
    assert by_id(Dataset.read([first, second]), "item") == {"a": {"text.title": "T"}}
    assert recommender.add({"item_data": [{"item_id": "i001"}]}, replace_known=True).joined.changed_items == 0


def test_a_log_without_events_says_so(tmp_path):
    with pytest.raises(DataError, match="there is no interaction"):
        Dataset.read(write(tmp_path, []))
