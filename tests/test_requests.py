"""Requests: their histories, values that the model cannot read, and independence of each other."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.core.errors import DataError, InputError
from anyrec.data.list_columns import flat
from anyrec.data.partial import request_of_document
from anyrec.serving.result import infer

HISTORY = ["i001", "i004", "i009"]
EVENTS = [{"user_id": "new", "item_id": item, "timestamp": 1_700_000_000 + n} for n, item in enumerate(HISTORY)]


def make(**changes):
    config = small_config(**{"training": {"epochs": 1, "batch_size": 128, "patience": None}, **changes})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def models():
    """A model that reads histories, one that does not, a classical one, and one behind sources that read histories."""
    sources = [{"type": "item_to_item"}, {"type": "history"}]
    return {
        "history": make(features={"history": {"layers": 1, "window": 8}}),
        "plain": make(),
        "ease": Recommender.from_config({"model": {"type": "ease"}}).fit(small_dataset(), progress=False),
        "popularity": Recommender.from_config({"model": {"type": "popularity"}}).fit(small_dataset(), progress=False),
        "staged": make(pipeline={"retrieve": {"k": 20, "sources": sources}}),
    }


def ask(model, document, k=40, **options):
    return infer(model, request_of_document(document, model.dataset, model.config.data), k, embeddings=True, **options)


def listed(result, place=0):
    return [row["item_id"] for row in result["users"][place]["recommendations"]]


@pytest.mark.parametrize("name", ["history", "plain", "ease", "popularity", "staged"])
def test_the_interactions_of_a_request_are_a_new_users_history_and_are_not_listed(models, name):
    model = models[name]
    result = ask(model, {"user_data": [{"user_id": "new"}], "interactions": EVENTS})
    assert not set(HISTORY) & set(listed(result)) and len(listed(result)) == 37
    again = ask(model, {"user_data": [{"user_id": "new"}], "interactions": EVENTS}, exclude_seen=False)
    assert len(listed(again)) == 40
    nothing = ask(model, {"user_data": [{"user_id": "new"}]}, exclude_seen=False)
    reads = name in ("history", "ease")
    scores = [[row["score"] for row in one["users"][0]["recommendations"]] for one in (again, nothing)]
    assert (scores[0] != scores[1]) == reads
    assert any("reads no history" in note for note in result["notes"]) == (name == "plain")


@pytest.mark.parametrize("name", ["history", "ease", "staged"])
def test_a_history_is_the_same_in_every_form(models, name):
    model = models[name]
    by_events = ask(model, {"user_data": [{"user_id": "new"}], "interactions": EVENTS})
    by_list = ask(model, {"user_data": [{"user_id": "new", "temporal": {"prev_interactions": HISTORY}}]})
    alone = ask(model, {"interactions": EVENTS})
    table = pa.table({"user_id": ["new"] * 3, "item_id": HISTORY})
    frame = model.recommend([{"user_id": "new"}], 40, interactions=table.to_pandas())
    assert listed(by_events) == listed(by_list) == listed(alone) == frame["item_id"].to_pylist()
    assert by_list["notes"] == by_events["notes"] == []


@pytest.mark.parametrize("name", ["history", "ease"])
def test_the_interactions_of_a_request_extend_the_history_of_a_known_user(models, name):
    model = models[name]
    seen = model.dataset.ids("item").take(pa.array(model.model.seen.take(np.array([3]))[1])).to_pylist()
    fresh = next(item for item in model.dataset.ids("item").to_pylist() if item not in seen)
    before = ask(model, {"user_data": [{"user_id": "u003"}]})
    after = ask(model, {"user_data": [{"user_id": "u003"}], "interactions": [{"user_id": "u003", "item_id": fresh}]})
    assert set(listed(before)) - set(listed(after)) == {fresh}
    assert [row["score"] for row in before["users"][0]["recommendations"]][:5] != [
        row["score"] for row in after["users"][0]["recommendations"]
    ][:5]
    same = ask(model, {"interactions": [{"user_id": "u003", "item_id": seen[0]}]})
    assert listed(same) == listed(before)


def test_the_times_of_a_request_order_its_history(models):
    forwards = ask(models["history"], {"interactions": EVENTS})
    shuffled = ask(models["history"], {"interactions": [EVENTS[2], EVENTS[0], EVENTS[1]]})
    backwards = ask(models["history"], {"interactions": [{**one, "timestamp": -n} for n, one in enumerate(EVENTS)]})
    assert forwards["users"] == shuffled["users"] != backwards["users"]


def test_a_pair_is_scored_as_it_was_before_the_requests_interactions(models):
    result = ask(
        models["history"],
        {"user_data": [{"user_id": "u003"}], "interactions": [{"user_id": "u003", "item_id": "i001"}]},
    )
    known = models["history"].score([{"user_id": "u003", "item_id": "i001"}])["score"][0].as_py()
    assert result["scores"][0]["score"] == pytest.approx(known, abs=1e-6)


RIGHT = {"user_id": "x", "categorical": {"job": "nurse"}, "continuous": {"age": 30}}
UNREAD = {
    "group": ({"user_id": "x", "categorial": {"job": "nurse"}}, r"categorial/job.*Did you mean 'categorical.job'"),
    "feature": (
        {"user_id": "x", "categorical": {"jop": "nurse"}},
        r"no user feature 'categorical.jop'.*'categorical.job'",
    ),
    "other group": ({"user_id": "x", "categorical": {"age": 30}}, "Did you mean 'continuous.age'"),
    "category": (
        {"user_id": "x", "categorical": {"job": "Nurse"}},
        "never saw the category 'Nurse'.*Did you mean 'nurse'",
    ),
    "list": ({"user_id": "x", "continuous": {"age": [30, 31]}}, "/user_data/0/continuous/age: one value is expected"),
    "id type": ({"user_id": 5, "categorical": {"job": "nurse"}}, "ids of this model are texts; found 5"),
    "nobody": ({"user_id": "x"}, "the model does not know this user and the record holds nothing else"),
    "unknown item": (
        {"user_id": "x", "temporal": {"prev_interactions": ["i001", "gone"]}},
        "1 item of the given histories",
    ),
    "other list": ({"user_id": "x", "temporal": {"wishes": ["i001"]}}, "if data.history names it"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_unreadable_values_are_named_and_are_errors_under_strict(models, name):
    record, expected = UNREAD[name]
    result = ask(models["history"], {"user_data": [record]})
    text = "\n".join(result["notes"])
    assert re.search(expected, text), text
    with pytest.raises(DataError):
        ask(models["history"], {"user_data": [record]}, strict=True)
    with pytest.raises(DataError):
        models["history"].recommend([record], 3, strict=True)
    assert ask(models["history"], {"user_data": [RIGHT]}, strict=True)["notes"] == []


def test_a_note_counts_records_and_does_not_repeat_itself(models):
    result = ask(
        models["plain"], {"user_data": [{"user_id": f"x{n}", "categorical": {"jop": "a"}} for n in range(5000)]}, 1
    )
    assert sum("jop" in note for note in result["notes"]) == 1
    assert "(5,000 records)" in "".join(result["notes"])


def test_one_record_written_as_a_list_does_not_hide_the_values_of_others(models):
    people = [{"user_id": "a", "continuous": {"age": 30}}, {"user_id": "b", "continuous": {"age": [30]}}]
    result = ask(models["plain"], {"user_data": people}, strict=True)
    assert result["users"][0]["embedding"] == pytest.approx(result["users"][1]["embedding"], abs=1e-6)
    alone = ask(models["plain"], {"user_data": people[:1]})
    assert result["users"][0]["embedding"] == pytest.approx(alone["users"][0]["embedding"], abs=1e-6)


def test_a_single_category_is_read_as_a_list_of_one_if_another_record_has_none(models):
    items = [{"item_id": "a", "categorical": {"tags": "nurse"}}, {"item_id": "b", "text": {"title": "Thing"}}]
    found = ask(models["plain"], {"item_data": items})["items"]
    alone = ask(models["plain"], {"item_data": [{"item_id": "a", "categorical": {"tags": ["nurse"]}}]})["items"]
    assert found[0]["embedding"] == pytest.approx(alone[0]["embedding"], abs=1e-6)
    masked = pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), pa.array(["x", "y"]), mask=pa.array([True, False])
    )
    values, owners = flat(masked)
    assert values.to_pylist() == ["y"] and owners.tolist() == [1]


def test_an_interaction_of_a_user_without_a_record_is_an_error_with_its_place(models):
    document = {"user_data": [{"user_id": "u001"}], "interactions": [{"user_id": "u009", "item_id": "i001"}]}
    with pytest.raises(DataError, match="/interactions/0/user_id: no record in user_data has the id 'u009'"):
        ask(models["plain"], document)


def test_a_new_item_with_an_id_of_another_type_is_an_error_with_its_place(models):
    with pytest.raises(DataError, match="/item_data/0/item_id: the ids of this model's items are texts; found 500"):
        ask(models["plain"], {"user_data": [{"user_id": "u001"}], "item_data": [{"item_id": 500}]})


def test_concurrent_requests_are_answered_like_single_ones_and_leave_no_state(models):
    def calls(model, n):
        item = {"item_id": f"fresh{n}", "categorical": {"tags": ["nurse"]}, "continuous": {"price": 10.0 * n}}
        person = {"user_id": f"q{n}", "categorical": {"job": "nurse" if n % 2 else "gone"}}
        events = [{"user_id": f"q{n}", "item_id": one} for one in (f"i{n:03d}", *([f"fresh{n}"] if n % 2 else []))]
        document = {"user_data": [person], "interactions": events, **({"item_data": [item]} if n % 2 else {})}
        return [
            lambda: model.recommend([f"u{n:03d}"], 5).to_pylist(),
            lambda: {key: value for key, value in ask(model, document, 5).items() if key != "latency_ms"},
            lambda: model.answer([person], 5, now=0).table.to_pylist(),
            lambda: model.similar([f"i{n:03d}"], 3).to_pylist(),
            lambda: model.add_items([item]).recommend([f"u{n:03d}"], 5).to_pylist(),
            lambda: model.search(text="nurse", user=f"u{n:03d}", k=3).to_pylist(),
        ]

    rules = [{"type": "calibrate", "feature": "item.categorical.tags"}]
    rules.append({"type": "boost", "where": {"item.continuous.price": {"lt": 40}}, "factor": 2})
    stages = {"retrieve": {"k": 20}, "rerank": {"rules": rules}, "strict": True}
    model = make(features={"history": {"type": "aggregates"}}, pipeline=stages)
    programs = [one for n in range(8) for one in calls(model, n)]
    alone = [program() for program in programs]
    kept = list(model.model.context.warnings)
    barrier = threading.Barrier(8)

    def shuffled(seed):
        barrier.wait()
        order = np.random.default_rng(seed).permutation(len(programs))
        return {int(place): programs[place]() for place in order}

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(shuffled, range(8)):
            assert all(found[place] == alone[place] for place in range(len(programs)))
    assert model.model.context.warnings == kept
    assert not any("fresh3" in note or "i003" in note for note in alone[1]["notes"])


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", None, True, float("nan")])
def test_a_number_of_items_below_one_or_of_another_kind_is_an_error(models, k):
    for call in (lambda: models["plain"].recommend(["u001"], k), lambda: models["plain"].similar(["i001"], k)):
        with pytest.raises(InputError, match="k: expected a whole number of at least 1"):
            call()
