"""Off-policy evaluation: the log, the probabilities of a candidate, and estimates against a known truth."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from asked import ask, make, ranked
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ServingConfig
from anyrec.core.errors import DataError, InputError
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender
from anyrec.serving.experiments.evaluate import evaluate
from anyrec.serving.experiments.off_policy import off_policy
from anyrec.serving.http.app import make_app
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.query import Query
from anyrec.serving.live.service import Service

ITEMS, GROUPS = 6, 3
TASTE = np.random.default_rng(0).uniform(0.05, 0.6, (GROUPS, ITEMS, ITEMS))
"""Probability of a click, by group of users, item and position."""
ORDERS = [np.random.default_rng(seed).normal(size=(GROUPS, ITEMS)) for seed in (1, 2)]
"""Scores by group and item of the policy that logs and of a candidate."""
GREEDY = {"epsilon": 0.6, "pool": 6}
THOMPSON = {"method": "thompson", "pool": 3, "prior_misses": 2}


def explore(*positions, **options):
    return make("explore", positions=list(positions), **options)


def explored(*positions, **options):
    """Changes of a config: a pipeline that draws."""
    rule = {"type": "explore", "positions": list(positions), **options}
    return {"pipeline": {"rerank": {"rules": [rule]}}}


# The probability of an item


def requested(users, seed=0, items=ITEMS):
    ids = {"user_id": [f"u{n}" for n in range(users)]}
    return ask({"item_id": [f"i{n}" for n in range(items)]}, ids, seed=seed)


@pytest.mark.parametrize("options", [{"epsilon": 0.4, "pool": 3}, {"method": "thompson", "pool": 4}])
def test_the_chance_of_an_item_is_the_frequency_by_which_it_is_at_its_position(options):
    """Also at positions that nothing is drawn for, after slots whose outcome is not given."""
    users = 4000
    rule, lists = explore(1, 3, **options), ranked(np.tile(np.arange(6.0), (users, 1)))
    shown = rule.apply(requested(users), lists, ITEMS).items
    for positions in ([1], [3], [2], [1, 3], [2, 3], [4]):
        for items in ([5, 3], [4, 2], [5, 5], [-1, 3]):
            wanted = np.array([items[: len(positions)]])
            (found,) = rule.chances(requested(1), ranked(np.arange(6.0)[None]), positions, wanted)
            same = np.cumprod(shown[:, np.array(positions) - 1] == wanted, axis=1)
            assert (np.abs(same.mean(0) - found) < 5 * np.sqrt(found * (1 - found) / users) + 1e-3).all()


@pytest.mark.parametrize("options", [{"epsilon": 0.3}, {"method": "thompson"}])
def test_the_chance_of_a_drawn_item_is_its_logged_propensity(options):
    rule, lists, request = explore(1, 3, pool=3, **options), ranked(np.eye(5, ITEMS)), requested(5)
    shown = rule.apply(request, lists, ITEMS).items
    logged = np.cumprod([one.values for one in request.logged], axis=0).T
    assert rule.chances(request, lists, [1, 3], shown[:, [0, 2]]) == pytest.approx(logged, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=2, unique=True),
    st.integers(1, 6),
    st.integers(2, 6),
    st.sampled_from(["epsilon_greedy", "thompson"]),
)
def test_the_chances_of_all_items_at_a_position_add_up_to_1(slots, position, pool, method):
    rule, request = explore(*slots, pool=pool, method=method), requested(ITEMS)
    lists = ranked(np.tile(np.arange(6.0), (ITEMS, 1)))
    found = rule.chances(request, lists, [position], np.arange(ITEMS)[:, None])
    assert found.sum() == pytest.approx(1, abs=2e-3)


def test_too_many_outcomes_are_an_error():
    with pytest.raises(InputError, match="too many combinations"):
        explore(1, 2, 3, 4, pool=6).chances(requested(1), ranked(np.eye(1, 6)), [5], np.zeros((1, 1), int))


# Estimates against the truth


def simulated(log, candidate, seed, users):
    """The estimates from a log of one list for each user, and the mean reward of the candidate in the same world."""
    rng = np.random.default_rng(seed)
    group, likes = rng.integers(0, GROUPS, users), rng.beta(2, 2, (users, 1)) * 1.6  # users like all of it, or nothing
    own, others = (ranked(order[group]) for order in ORDERS)
    request = requested(users, seed)
    slots = np.array(sorted(log.params.positions)) - 1

    def rewards(lists):
        items = lists.items[:, slots]
        return items, np.clip(TASTE[group[:, None], items, slots] * likes, 0, 1)

    items, chance = rewards(log.apply(request, own, ITEMS))
    propensities = np.cumprod([one.values for one in request.logged], axis=0).T
    if candidate is None:
        online, target = others, np.cumprod(others.items[:, slots] == items, axis=1)
    else:
        online = candidate.apply(requested(users, seed + 1_000_000), others, ITEMS)
        target = candidate.chances(request, others, slots + 1, items)
    clicks = rng.random(chance.shape) < chance
    users = np.repeat(np.arange(users), len(slots))
    places = np.tile(slots, len(items))
    return off_policy(clicks.ravel(), propensities.ravel(), target.ravel(), users, places), rewards(online)[1].mean()


@pytest.mark.parametrize(
    ("log", "candidate", "users", "times"),
    [
        (explore(1, **GREEDY), None, 2000, 100),
        (explore(1, 2, **GREEDY), None, 4000, 60),
        (explore(1, 2, **GREEDY), explore(1, 2, epsilon=0.3, pool=4), 2000, 100),
        (explore(1, 2, **GREEDY), explore(1, 3, epsilon=0.3, pool=4), 2000, 60),
        (explore(1, 2, **GREEDY), explore(2, **THOMPSON), 600, 40),
        (explore(1, 2, method="thompson", pool=6, prior_misses=2), explore(1, 2, epsilon=0.5), 300, 40),
    ],
)
def test_intervals_contain_the_mean_reward_that_the_candidate_has_online(log, candidate, users, times):
    found = [simulated(log, candidate, seed, users) for seed in range(times)]
    truth = np.mean([online for _, online in found])
    for name in ("ips", "snips"):
        estimates = [getattr(one, name) for one, _ in found]
        values = np.array([one.value for one in estimates])
        assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(times) + 0.003
        assert np.mean([one.low <= truth <= one.high for one in estimates]) >= 0.9
    assert np.mean([one.weight.low <= 1 <= one.weight.high for one, _ in found]) >= 0.9


def test_rows_of_one_user_are_not_counted_as_independent():
    rng = np.random.default_rng(0)
    users, covered = np.repeat(np.arange(100), 20), {"users": 0, "rows": 0}
    for _ in range(200):
        chance = np.repeat(rng.beta(0.5, 0.5, 100), 20)
        drawn = rng.random(2000) < 0.5
        for name, own in (("users", users), ("rows", None)):
            found = off_policy(rng.random(2000) < chance, np.full(2000, 0.5), drawn, own).snips
            covered[name] += found.low <= 0.5 <= found.high
    assert covered["users"] / 200 >= 0.9 and covered["rows"] / 200 < 0.6


def test_no_conclusion_is_drawn_from_data_that_carry_none():
    half, rewards, place = np.full(400, 0.5), np.repeat([1.0, 0.0, 0.0, 0.0], 100), np.arange(400)
    better = off_policy(rewards, half, place < 200)
    assert better.enough and "better than what was shown: +0.25" in better.conclusion
    assert "worse than what was shown: -0.25" in off_policy(rewards, half, place >= 200).conclusion
    assert (
        "even if up to 59% of what the candidate shows had no reward"
        in off_policy(rewards, half, place < 100).conclusion
    )
    assert "none of the items" in off_policy(rewards, half, np.zeros(400)).conclusion
    assert "20 effective users" in off_policy(rewards, half, place < 20).conclusion
    assert "rests on rewards of 5 effective users" in off_policy(place < 5, half, half).conclusion
    assert "are wrong" in off_policy(rewards, half, np.ones(400)).conclusion
    partly = off_policy(rewards, half, half * (place % 2))
    assert not partly.enough and "up to 55% of what the candidate shows could not" in partly.conclusion
    assert off_policy(rewards, half, np.zeros(400)).as_json()["snips"]["value"] is None
    rare = off_policy(rewards, np.full(400, 0.1), place % 10 == 0)
    assert not rare.enough and rare.weight.low < 0.8 < 1 < rare.weight.high and "Log more lists" in rare.conclusion
    same = off_policy(rewards, half, half)
    assert same.enough and "do not differ clearly" in same.conclusion and same.difference.value == 0


# The log of a server

MOMENTS = [1_900_000_000 + 100_000 * n for n in range(6)]
"""Times of requests: each has draws of its own."""
SLOTS = explored(1, 3, epsilon=0.5, pool=5)


@pytest.fixture(scope="module")
def trained():
    return Recommender.from_config(small_config()).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def drawing(trained):
    return trained.with_config(SLOTS, progress=False)


def drawn(folder):
    return list(read_events(folder / "drawn"))


def event(number, listing, item, kind="buy"):
    return {
        "event_id": f"{number}",
        "user_id": listing["user_id"] if isinstance(listing, dict) else listing,
        "item_id": item,
        "interaction_type": kind,
        **({"recommendation_id": listing["recommendation_id"]} if isinstance(listing, dict) else {}),
    }


def test_lists_with_drawn_items_are_logged_with_what_repeats_them(drawing, tmp_path):
    with TestClient(make_app(Service(drawing, ServingConfig(), tmp_path))) as client:
        asked = {"user_id": "u001", "k": 4, "context": {"hour": 3}, "history": ["i003"], "exclude": ["i001"], "now": 5}
        answer = client.post("/v1/recommend", json=asked).json()
        client.post("/v1/recommend", json={"user_id": "u001", "k": 4, "offset": 4})  # nothing is drawn for this page
        client.post("/v1/recommend", json={"k": 2, "user": {"categorical": {"job": "pilot"}}})
    first, other = drawn(tmp_path)
    assert first["recommendation_id"] == answer["recommendation_id"] and first["user_id"] == "u001"
    assert first["items"] == [one["item_id"] for one in answer["items"]] and first["model"] == drawing.model.model_id
    assert [slot[:2] for slot in first["draws"]["slots"]] == [[1, first["items"][0]], [3, first["items"][2]]]
    assert all(0 < slot[2] <= 1 for slot in first["draws"]["slots"]) and first["draws"]["user"] == "u001"
    request = {"k": 4, "context": {"hour": 3}, "history": ["i003"], "exclude": ["i001"], "now": 5_000_000}
    assert first["request"] == request
    assert other["user_id"] is None and other["request"] == {"k": 2, "user": {"categorical": {"job": "pilot"}}}
    assert [slot[0] for slot in other["draws"]["slots"]] == [1]


def test_nothing_is_logged_of_pipelines_that_draw_nothing_or_move_what_they_draw(trained, tmp_path):
    pinned = {"type": "pin", "items": [{"item": "i001", "position": 1}]}
    rules = [*SLOTS["pipeline"]["rerank"]["rules"], pinned]
    moved = trained.with_config({"pipeline": {"rerank": {"rules": rules}}}, progress=False)
    assert any("put it last" in note for note in moved.notes)
    for name, recommender in (("none", trained), ("moved", moved)):
        service = Service(recommender, ServingConfig(), tmp_path / name)
        service.lists([Query(user_id="u001")])
        service.close()
        assert not (tmp_path / name / "drawn").exists()
    with pytest.raises(InputError, match="Put the one rule that draws last"):
        evaluate(tmp_path / "none", moved)


def test_shadow_variants_show_nothing_and_are_not_logged(trained, tmp_path):
    shown = {"a": {}, "b": {"config": SLOTS}, "c": {"config": explored(2), "shadow": True}}
    config = ServingConfig.model_validate({"experiments": [{"name": "e", "variants": shown}]})
    service = Service(trained, config, tmp_path)
    listings = service.lists([Query(user_id=f"u{n:03d}") for n in range(20)])
    service.close()
    found = drawn(tmp_path)
    assert 0 < len(found) < 20 and {(one["experiment"], one["variant"]) for one in found} == {("e", "b")}
    assert {one["recommendation_id"] for one in found} == {
        one.recommendation_id for one in listings if one.variant == "b"
    }


def numbered(data):
    """A data set whose ids are whole numbers."""

    def whole(table):
        for side in ("user_id", "item_id"):
            if side in table.column_names:
                ids = pa.array([int(one[1:]) for one in table.column(side).to_pylist()])
                table = table.set_column(table.column_names.index(side), side, ids)
        return table

    return Dataset(whole(data.users), whole(data.items), whole(data.interactions), roles=data.roles)


@pytest.mark.parametrize("ids", ["texts", "whole numbers"])
def test_the_policy_that_logged_has_the_weight_1_at_each_list_whatever_happened(ids, drawing, tmp_path):
    """Its lists depend on events, records and removals before them, and not on those after them."""
    name = (lambda text: text) if ids == "texts" else lambda text: int(text[1:])
    if ids != "texts":
        data = numbered(small_dataset())
        drawing = Recommender.from_config(small_config(**SLOTS)).fit(data, progress=False)
    with TestClient(make_app(Service(drawing, ServingConfig(), tmp_path))) as client:
        number = 0

        def lists(moment, users=range(0, 60, 6), **more):
            nonlocal number
            for user in users:
                asked = {"user_id": name(f"u{user:03d}"), "now": moment, "k": 5, **more}
                answer = client.post("/v1/recommend", json=asked)
                assert answer.status_code == 200, answer.text
                for item in answer.json()["items"][:3:2]:
                    number += 1
                    client.post("/v1/events", json={"events": [event(number, answer.json(), item["item_id"])]})

        lists(MOMENTS[0])
        lists(MOMENTS[1], history=[name("i004")], exclude=[name("i005"), name("i006")])
        record = {"categorical": {"tags": ["baker"]}, "continuous": {"price": 50.0}, "text": {"title": "New bread"}}
        client.put("/v1/items", json={"items": [{"item_id": name("i900"), **record}]})
        client.put("/v1/users", json={"users": [{"user_id": name("u000"), "categorical": {"job": "baker"}}]})
        lists(MOMENTS[2], [*range(0, 60, 6), 777], filter={"item.continuous.price": {"lt": 60}})
        shown = [slot[1] for one in drawn(tmp_path) for slot in one["draws"]["slots"]]
        client.delete(f"/v1/items/{shown[0]}")
        client.delete(f"/v1/users/{name('u006')}")
        lists(MOMENTS[3], candidates=[name(f"i{n:03d}") for n in range(0, 40, 2)])
        lists(MOMENTS[4], offset=2)
        lists(MOMENTS[5], user={"categorical": {"job": "clerk"}}, include_seen=True)
        for _ in range(5):
            client.post("/v1/recommend", json={"k": 3})
    found = evaluate(tmp_path, drawing)
    assert found.lists == 66 and found.value.rows == 2 * 66 - 10 and found.value.users == 11 + 5
    assert found.value.weight.value == pytest.approx(1, abs=1e-12) and found.value.supported == found.value.rows
    value = found.value
    assert value.ips == value.snips and value.ips.value == value.logged.value and found.notes == []
    unrewarded = 12  # of persons without an id, and of an unknown user, whose events are refused
    assert found.value.logged.value == pytest.approx(1 - unrewarded / found.value.rows)


@pytest.fixture(scope="module")
def world(drawing, tmp_path_factory):
    """A log of lists at several moments, users who click by the item and the position, and the chance of a click."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(3)
    likes = dict(zip(drawing.dataset.ids("item").to_pylist(), rng.uniform(0.05, 0.9, 40), strict=True))
    service = Service(drawing, ServingConfig(), folder)
    queries = [Query(user_id=user, now=m * 10**6, k=5) for m in MOMENTS for user in (f"u{n:03d}" for n in range(60))]
    for number, (query, listing) in enumerate(zip(queries, service.lists(queries), strict=True)):
        shown = {"user_id": query.user_id, "recommendation_id": listing.recommendation_id}
        for place in (0, 2):
            item = listing.items[place].item_id
            if rng.random() < likes[item]:
                service.receive([event(f"{number}-{place}", shown, item, "click")])
    service.close()
    return folder, queries, likes


@pytest.mark.parametrize("changes", [{"pipeline": {"rerank": {"rules": []}}}, explored(1, 3, epsilon=0.8, pool=4)])
def test_a_candidate_is_worth_what_it_has_online(world, drawing, changes):
    folder, queries, likes = world
    candidate = drawing.with_config(changes, progress=False)
    online = Service(candidate, ServingConfig())
    truth = np.mean([likes[one.items[place].item_id] for one in online.lists(queries) for place in (0, 2)])
    found = evaluate(folder, candidate)
    assert found.lists == 360 and found.value.users == 60 and found.value.rows == 720 and found.notes == []
    for one in (found.value.ips, found.value.snips):
        assert one.low <= truth <= one.high and one.value == pytest.approx(truth, abs=0.06)
    assert found.value.weight.low <= 1 <= found.value.weight.high and found.value.effective > 40
    assert found.value.enough


@pytest.fixture(scope="module")
def log(drawing, tmp_path_factory):
    """Lists of 20 users, who look at the page twice on one day and buy the first item at the second look."""
    folder = tmp_path_factory.mktemp("log")
    with TestClient(make_app(Service(drawing, ServingConfig(), folder))) as client:
        for n in range(20):
            pages = [client.post("/v1/recommend", json={"user_id": f"u{n:03d}", "k": 3}).json() for _ in range(2)]
            client.post("/v1/events", json={"events": [event(n, pages[1], pages[1]["items"][0]["item_id"])]})
            client.post("/v1/recommend", json={"user_id": f"u{n:03d}", "k": 3})
    return folder


def test_random_numbers_count_once_and_later_looks_at_their_outcome_are_rewards_of_the_first(log, drawing):
    found = evaluate(log, drawing)
    assert found.lists == 20 and found.value.rows == 40 and found.value.logged.value == 0.5
    assert found.value.weight.value == 1 and len(drawn(log)) == 60
    assert found.notes == [
        "40 lists were left out: they show the outcome of an earlier draw: reloads, further pages, and other lists of "
        "the same day."
    ]
    assert "20 effective users" in found.value.conclusion and not found.value.enough
    assert evaluate(log, drawing, ["buy"]).value.logged.value == 0.5
    with pytest.raises(DataError, match=r"no event has the interaction type 'bye'.*buy"):
        evaluate(log, drawing, ["bye"])


def test_items_that_a_candidate_does_not_know_are_never_shown_by_it(log, drawing):
    data, gone = small_dataset(), {slot[1] for one in drawn(log)[:5] for slot in one["draws"]["slots"]}
    items, interactions = (
        table.filter(pa.array([item not in gone for item in table.column("item_id").to_pylist()]))
        for table in (data.items, data.interactions)
    )
    data = Dataset(data.users, items, interactions, roles=data.roles)
    candidate = Recommender.from_config(small_config(**SLOTS)).fit(data, progress=False)
    found = evaluate(log, candidate)
    first = [one for n, one in enumerate(drawn(log)) if n % 3 == 0]
    unknown = sum(slot[1] in gone for one in first for slot in one["draws"]["slots"])
    assert f"The candidate does not know {unknown} of the drawn items. It shows them never." in found.notes
    assert found.value.supported <= 40 - unknown and not found.value.enough


def test_lists_that_a_candidate_was_trained_after_are_left_out(log, drawing, trained):
    data = small_dataset()
    times = pa.array([dt.datetime(2200, 1, 1)] * len(data.interactions), pa.timestamp("us", "UTC"))
    late = data.interactions.drop_columns(["timestamp"]).append_column("timestamp", times)
    late = Dataset(data.users, data.items, late, roles=data.roles)
    candidate = Recommender.from_config(small_config(**SLOTS)).fit(late, progress=False)
    with pytest.raises(DataError, match=r"older than the last interaction.*Train the candidate on data that end"):
        evaluate(log, candidate)
    # a model that keeps no times is found out by the items that it knows its users to have bought
    learned = trained.update(log / "events-000001.jsonl", progress=False)
    assert learned.model.history is None
    found = evaluate(log, learned)
    assert not found.value.enough and "candidate's training data" in found.value.conclusion


def test_the_command_prints_what_the_method_returns(log, drawing, tmp_path):
    folder = drawing.save(tmp_path / "model")
    changes = tmp_path / "changes.json"
    changes.write_text(json.dumps({"pipeline": {"rerank": {"rules": []}}}))
    code, out, _ = call("experiment", "evaluate", log, "--model_path", folder, "--config", changes, "--json")
    candidate = drawing.with_config(changes, progress=False)
    assert code == 0 and json.loads(out) == evaluate(log, candidate).as_json()
    code, out, message = call("experiment", "evaluate", log, "--model-path", folder, "--type", "buy", "--table")
    assert code == 0 and "20 lists, 40 drawn items" in out and "candidate (SNIPS)" in out
    assert "could have shown 40 of 40 items" in out and "No conclusion: " in out and "40 lists were left out" in message


def test_logs_and_models_that_cannot_be_evaluated_are_errors(log, drawing, trained, tmp_path):
    folder = drawing.save(tmp_path / "model")
    service = Service(trained, ServingConfig(), tmp_path / "without")
    service.lists([Query(user_id="u001")])
    service.close()
    silent = Service(drawing, ServingConfig(), tmp_path / "silent")
    silent.lists([Query(user_id="u001")])
    silent.close()
    numbers = Recommender.from_config(small_config()).fit(numbered(small_dataset()), progress=False)
    broken = tmp_path / "broken"
    (broken / "drawn").mkdir(parents=True)
    (broken / "drawn" / "events-000001.jsonl").write_text('{"recommendation_id": 3}\n')
    for place, model, said in (
        (tmp_path / "nowhere", folder, "the log has no lists with items that were drawn"),
        (tmp_path / "without", folder, "the log has no lists with items that were drawn"),
        (tmp_path / "silent", folder, "Send `recommendation_id`"),
        (broken, folder, "a line is no logged list"),
        (log, numbers.save(tmp_path / "numbers"), "knows none of the 40 items that were drawn"),
        (log, log / "nowhere", "nowhere"),
    ):
        code, _, message = call("experiment", "evaluate", place, "--model_path", model)
        assert code == 2 and said in message, message


def test_tables_of_ones_own_are_evaluated_by_users(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "rows.csv"
    rows = [f"{rng.integers(0, 2)},0.5,{rng.integers(0, 2)},user{n % 50}" for n in range(400)]
    path.write_text("\n".join(["reward,propensity,target_propensity,user_id", *rows]))
    code, out, _ = call("experiment", "off-policy", path, "--json")
    assert code == 0 and json.loads(out)["users"] == 50
    code, out, _ = call("experiment", "off-policy", path, "--table")
    assert code == 0 and "400 rows" in out and "do not differ clearly" in out
    path.write_text("reward,propensity\n1,0.5\n")
    code, _, message = call("experiment", "off-policy", path)
    assert code == 2 and "target_propensity" in message
