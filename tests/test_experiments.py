"""Experiments: sticky assignment, what the log says, and a test that may be looked at at any time."""

import json
import math
import re
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import chi2
from small import call, small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ExperimentConfig, ServingConfig
from anyrec.core.errors import ConfigError, DataError
from anyrec.core.load_config import read_config
from anyrec.recommender import Recommender
from anyrec.serving.experiments.assignment import assign, fraction
from anyrec.serving.experiments.inference import CONCENTRATION, MISMATCH, difference, mismatch, rate, too_few
from anyrec.serving.experiments.off_policy import off_policy
from anyrec.serving.experiments.report import experiment_report
from anyrec.serving.http.app import make_app
from anyrec.serving.live.event_log import EventLog, read_events
from anyrec.serving.live.query import Query
from anyrec.serving.live.service import Service

RULE = {"type": "where", "where": {"not": {"item.categorical.tags": {"contains": "pilot"}}}}
NO_PILOTS = {"pipeline": {"rerank": {"rules": [RULE]}}}


def experiment(name="rules", **variants):
    return ExperimentConfig.model_validate({"name": name, "variants": variants or {"a": {}, "b": {}}})


@pytest.fixture(scope="module")
def recommender():
    return Recommender.from_config(small_config()).fit(small_dataset(), progress=False)


# Assignment


@given(st.one_of(st.integers(), st.text()), st.text(max_size=5))
def test_a_user_always_has_the_same_variant(user, salt):
    one = ExperimentConfig(name="e", salt=salt, variants={"a": {}, "b": {"share": 3.0}})
    assert assign([one], user) == assign([one], user) and 0 <= fraction(salt, user) < 1
    assert assign([one], None) is None


def test_shares_and_traffic_are_those_of_the_config():
    first = ExperimentConfig.model_validate({"name": "x", "traffic": 0.2, "variants": {"a": {}, "b": {"share": 3.0}}})
    second = ExperimentConfig.model_validate({"name": "y", "traffic": 0.5, "variants": {"a": {}, "b": {}}})
    found = Counter(assign([first, second], user) for user in range(40_000))
    shares = {(one.experiment, one.variant) if one else None: count / 40_000 for one, count in found.items()}
    expected = {("x", "a"): 0.05, ("x", "b"): 0.15, ("y", "a"): 0.25, ("y", "b"): 0.25, None: 0.3}
    assert shares == pytest.approx(expected, abs=0.01)


def test_experiments_are_independent_of_each_other_and_ids_of_other_types_are_others():
    one, other = experiment("one"), experiment("other")
    both = Counter((assign([one], n).variant, assign([other], n).variant) for n in range(20_000))
    assert all(count / 20_000 == pytest.approx(0.25, abs=0.015) for count in both.values())
    assert any(assign([one], n) != assign([one], str(n)) for n in range(50))


@pytest.mark.parametrize(
    "changes",
    [
        {"variants": {"a": {}}},
        {"variants": {"a": {"shadow": True}, "b": {}}},
        {"variants": {"a": {"share": 0.0}, "b": {"shadow": True}}},
        {"name": "a b", "variants": {"a": {}, "b": {}}},
    ],
)
def test_wrong_experiments_are_refused(changes):
    with pytest.raises(ValueError):
        ServingConfig.model_validate({"experiments": [{"name": "e", **changes}]})
    with pytest.raises(ValueError, match="traffic"):
        ServingConfig(experiments=[experiment("a"), experiment("b")])


def test_the_configs_that_the_page_shows_fit_a_model(recommender):
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    configs = [json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", page, re.DOTALL)]
    assert any("experiments" in one.get("serving", {}) for one in configs)
    for config in configs:
        read, warnings = read_config(config)
        assert not warnings
        for one in read.serving.experiments:
            for variant in one.variants.values():
                recommender.with_config(variant.config, progress=False)


# Statistics


@given(st.integers(1, 500), st.data())
def test_an_interval_contains_its_rate(users, data):
    found = rate(users, data.draw(st.integers(0, users)))
    assert 0 <= found.low <= found.rate <= found.high <= 1


def test_the_p_value_and_the_interval_agree():
    for converted in range(80, 200, 10):
        found = difference(rate(1000, 100), rate(1000, converted), 0.02)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
        several = difference(rate(1000, 100), rate(1000, converted), 0.02, 5)
        assert (several.p < 0.05) == (not several.low <= 0 <= several.high) and several.low < found.low
    assert difference(rate(10_000, 1000), rate(10_000, 1300), 0.02).p < 1e-6


@pytest.mark.parametrize(("share", "effect"), [(0.1, 0.02), (0.5, 0.05), (0.03, 0.01)])
def test_looking_after_every_hundred_users_is_wrong_in_at_most_5_percent(share, effect):
    """A classical test at every look would be wrong in about 30 % of these simulations."""
    rng = np.random.default_rng(0)
    looks = np.arange(200, 10_001, 100)
    false, classical = 0, 0
    for _ in range(400):
        done = [np.cumsum(rng.random(10_000) < share)[looks - 1] for _ in range(2)]
        pairs = [
            (rate(int(n), int(a)), rate(int(n), int(b)))
            for n, a, b in zip(looks, done[0], done[1], strict=True)
            if a + b >= 10
        ]
        false += any(difference(one, other, effect).p < 0.05 for one, other in pairs)
        classical += any(
            abs(one.rate - other.rate)
            > 1.96
            * math.sqrt(2 * max(1e-9, (one.rate + other.rate) / 2 * (1 - (one.rate + other.rate) / 2)) / one.users)
            for one, other in pairs
        )
    assert false / 400 <= 0.05 < classical / 400


def test_three_equal_variants_looked_at_after_every_hundred_users_are_wrong_in_at_most_5_percent():
    """As the report looks: users of unequal shares in random order, no verdict on few data, and the shares checked."""
    rng = np.random.default_rng(0)
    shares, looks = np.array([0.2, 0.4, 0.4]), np.arange(100, 5001, 100)
    together, alone = 0, 0
    for _ in range(400):
        variants, done = rng.choice(3, 5000, p=shares), rng.random(5000) < 0.1
        counts = [
            (np.cumsum(variants == one)[looks - 1], np.cumsum((variants == one) & done)[looks - 1]) for one in range(3)
        ]
        rates = [[rate(int(n), int(a)) for n, a in zip(*one, strict=True)] for one in counts]
        pairs = [(first, other) for one in rates[1:] for first, other in zip(rates[0], one, strict=True)]
        judged = [pair for pair in pairs if too_few(pair) is None]
        smallest = min(difference(first, other, 0.02).p for first, other in judged)
        corrected = min(difference(first, other, 0.02, 2).p for first, other in judged)
        assert corrected == pytest.approx(min(1, 2 * smallest))
        together, alone = together + (corrected < 0.05), alone + (smallest < 0.05)
    assert together / 400 <= 0.05 and together < alone


def test_the_report_corrects_for_all_variants_that_are_compared(tmp_path):
    names = dict.fromkeys("abcd", 1.0)
    simulated(tmp_path, names, dict.fromkeys(names, 0.1))
    report = experiment_report(tmp_path)
    assert report.differences == {
        name: difference(report.rates["a"], report.rates[name], 0.02, 3) for name in ("b", "c", "d")
    }


def test_a_real_difference_is_found():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(50):
        one, other = (int((rng.random(10_000) < share).sum()) for share in (0.10, 0.12))
        found += difference(rate(10_000, one), rate(10_000, other), 0.02).p < 0.05
    assert found >= 35


def in_random_order(*counts):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def test_numbers_of_users_that_contradict_the_shares_are_noticed():
    assert mismatch(in_random_order(5000, 5100), [1.0, 1.0]) > MISMATCH
    assert mismatch(in_random_order(9600, 10_400), [1.0, 1.0]) < 1e-4
    assert (
        mismatch(in_random_order(2500, 7500), [1.0, 3.0]) > 0.1 > 1e-9 > mismatch(in_random_order(3000, 7000), [1, 3])
    )
    assert mismatch(np.zeros(100, int), [1.0, 1.0]) < MISMATCH  # a variant that serves nobody
    assert mismatch(in_random_order(10, 10, 1), [1.0, 1.0, 0.0]) == 0 and mismatch(np.empty(0, int), [1.0, 1.0]) == 1


def test_the_evidence_against_the_shares_is_the_ratio_of_the_mixture_to_them():
    """Against the closed form of Lindon and Malek (2022), user by user."""
    variants, shares = in_random_order(30, 50, 90), np.array([0.25, 0.25, 0.5])
    prior, largest = CONCENTRATION * shares, 0.0
    for seen in range(len(variants) + 1):
        counts = np.bincount(variants[:seen], minlength=3)
        ratio = gammaln(prior.sum()) - gammaln(prior.sum() + seen) + (gammaln(prior + counts) - gammaln(prior)).sum()
        largest = max(largest, ratio - counts @ np.log(shares))
    assert mismatch(variants, 2 * shares) == pytest.approx(math.exp(-largest))


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.9], [0.2, 0.3, 0.5]])
def test_the_shares_are_blamed_at_any_time_in_at_most_1_percent(shares):
    """Looking after every 100 of 10,000 users; a chi-squared test at each look blames them in more than 5 %."""
    rng = np.random.default_rng(1)
    looks, expected = np.arange(100, 10_001, 100), np.array(shares)
    blamed, classical = 0, 0
    for _ in range(1000):
        variants = rng.choice(len(shares), 10_000, p=shares)
        blamed += mismatch(variants, shares) < MISMATCH  # it has looked after every user
        counts = np.stack([np.cumsum(variants == one)[looks - 1] for one in range(len(shares))])
        squares = ((counts - expected[:, None] * looks) ** 2 / (expected[:, None] * looks)).sum(0)
        classical += bool((chi2.sf(squares, len(shares) - 1) < MISMATCH).any())
    assert blamed / 1000 <= MISMATCH and classical / 1000 > 0.05


def test_the_value_of_another_policy_is_estimated_from_logged_probabilities():
    rng = np.random.default_rng(0)
    logging, target, value = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7]), np.array([0.1, 0.2, 0.5])
    covered = 0
    for _ in range(200):
        shown = rng.choice(3, 2000, p=logging)
        found = off_policy(rng.random(2000) < value[shown], logging[shown], target[shown])
        covered += found.ips.low <= target @ value <= found.ips.high
        assert found.snips.value == pytest.approx(target @ value, abs=0.12) and found.enough
    assert covered / 200 >= 0.9
    same = off_policy(np.array([0, 1, 1, 0]), np.full(4, 0.25), np.full(4, 0.25))
    assert same.ips.value == same.snips.value == same.logged.value == 0.5 and same.effective == 4
    with pytest.raises(DataError, match="greater than 0"):
        off_policy(np.ones(2), np.array([0.0, 0.5]), np.ones(2))


# The server


def test_variants_serve_their_users_and_the_log_says_which(recommender, tmp_path):
    config = ServingConfig(experiments=[experiment(a={}, b={"config": NO_PILOTS}, c={"shadow": True})])
    service = Service(recommender, config, tmp_path)
    pilots = {
        item
        for item, tags in zip(
            *(recommender.dataset.items[c].to_pylist() for c in ("item_id", "categorical.tags")), strict=True
        )
        if "pilot" in tags
    }
    shown = {}
    with TestClient(make_app(service)) as client:
        for user in recommender.dataset.ids("user").to_pylist():
            answer = client.post("/v1/recommend", json={"user_id": user, "k": 40, "include_seen": True}).json()
            shown[user] = answer
            items = {one["item_id"] for one in answer["items"]}
            assert answer["variant"] in ("a", "b")
            assert (items & pilots == set()) == (answer["variant"] == "b")
            event = {"event_id": user, "user_id": user, "item_id": answer["items"][0]["item_id"]}
            if answer["variant"] == "b":
                client.post("/v1/events", json={"events": [event]})
        anonymous = client.post("/v1/recommend", json={}).json()
        assert anonymous["variant"] == "default"
    lines = [one for one in read_events(tmp_path / "exposures") if not one["shadow"]]
    assert {one["user_id"]: one["recommendation_id"] for one in lines} == {
        user: answer["recommendation_id"] for user, answer in shown.items()
    }
    logged = list(read_events(tmp_path))
    assert logged and all((one["experiment"], one["variant"]) == ("rules", "b") for one in logged)
    assert recommender.update(tmp_path / "events-000001.jsonl", progress=False).joined
    report = experiment_report(tmp_path)
    assert report.rates["a"].converted == 0 and report.rates["b"].converted == report.rates["b"].users > 10
    assert report.rates["a"].users + report.rates["b"].users == 60
    assert "No conclusion on b yet" in report.conclusion
    assert report.shadows == {"c": {"lists": 60, "overlap": 1.0}}  # it lists all items
    code, out, _ = call("experiment", "report", tmp_path, "--json")
    assert code == 0 and '"conclusion"' in out
    code, out, _ = call("experiment", "report", tmp_path)
    assert code == 0 and "No conclusion on b yet" in out
    code, _, message = call("experiment", "report", tmp_path, "--experiment", "rulez")
    assert code == 2 and "rules" in message


def test_a_variant_that_does_not_fit_the_model_is_an_error_at_the_start(recommender):
    config = ServingConfig(experiments=[experiment(a={}, b={"config": {"dim": 3}})])
    service = Service(recommender, config)
    with pytest.raises(ConfigError, match="dim cannot change after training"):
        service.variants.check(service.served)


def test_another_model_can_be_a_variant_and_gets_the_changes_of_records(recommender, tmp_path):
    other = Recommender.from_config(small_config(name="other", seed=5)).fit(small_dataset(), progress=False)
    folder = other.save(tmp_path / "other")
    other = Recommender.load(folder)
    config = ServingConfig(experiments=[experiment(a={}, b={"model": str(folder)})])
    with TestClient(make_app(Service(recommender, config))) as client:
        client.delete("/v1/items/i001")
        for user in ("u000", "u001", "u002", "u003", "u004"):
            answer = client.post("/v1/recommend", json={"user_id": user, "k": 39, "include_seen": True}).json()
            model = recommender if answer["variant"] == "a" else other
            expected = model.recommend([user], 40, exclude_seen=False)["item_id"].to_pylist()
            assert [one["item_id"] for one in answer["items"]] == [item for item in expected if item != "i001"]
            assert answer["model"] == {"name": model.config.name, "digest": model.model.model_id}


def simulated(folder, shares, rates, users=4000):
    """A log of an experiment whose variants convert at given rates."""
    rng = np.random.default_rng(0)
    exposures, events = EventLog(folder / "exposures", "never"), EventLog(folder, "never")
    names, weights = list(shares), np.array(list(shares.values()))
    for user in range(users):
        variant = names[rng.choice(len(names), p=weights / weights.sum())]
        shown = {"user_id": user, "experiment": "e", "variant": variant, "shadow": False, "time": 1.0}
        exposures.append([{**shown, "recommendation_id": str(user), "items": [], "shares": dict.fromkeys(names, 1.0)}])
        if rng.random() < rates[variant]:
            event = {"event_id": str(user), "user_id": user, "item_id": 1, "timestamp": 2.0, "interaction_type": "buy"}
            events.append([event])
    exposures.close()
    events.close()


def test_conclusions_need_data_that_carry_them(tmp_path):
    simulated(tmp_path / "better", {"a": 1.0, "b": 1.0}, {"a": 0.1, "b": 0.2})
    assert "b is better than a" in experiment_report(tmp_path / "better").conclusion
    assert experiment_report(tmp_path / "better", types=["view"]).rates["a"].converted == 0
    simulated(tmp_path / "same", {"a": 1.0, "b": 1.0}, {"a": 0.1, "b": 0.1})
    assert "do not differ clearly" in experiment_report(tmp_path / "same").conclusion
    simulated(tmp_path / "lost", {"a": 1.0, "b": 0.8}, {"a": 0.1, "b": 0.2})
    assert "contradict the shares" in experiment_report(tmp_path / "lost").conclusion
    with pytest.raises(DataError, match="no experiment"):
        experiment_report(tmp_path / "better", "none")


def logged(folder, exposures, events=()):
    """A log of shown lists (user, variant, time, other keys) and of events (user, timestamp, received)."""
    shown, done = EventLog(folder / "exposures", "never"), EventLog(folder, "never")
    for n, (user, variant, time, *more) in enumerate(exposures):
        entry = {"user_id": user, "experiment": "e", "variant": variant, "shadow": False, "time": time, "items": [1, 2]}
        entry |= {"recommendation_id": str(n), "shares": {"a": 1.0, "b": 1.0}, **(more[0] if more else {})}
        shown.append([entry])
    for n, (user, timestamp, received) in enumerate(events):
        done.append([{"event_id": str(n), "user_id": user, "item_id": 1, "timestamp": timestamp, "received": received}])
    shown.close()
    done.close()
    return folder


def test_only_what_happened_after_the_first_list_of_a_user_is_a_conversion(tmp_path):
    exposures = [(user, "a", 100.7) for user in range(7)] + [(0, "a", 500.0), (9, "b", 100.0)]
    events = [
        (0, 300.0, 300.0),  # after the first list, before the second one
        (1, 90.0, 90.0),  # before the list
        (2, 90.0, 101.0),  # before the list, sent later
        (3, 100, 101.0),  # after it, by a clock of whole seconds
        (4, "1970-01-01T00:03:00Z", 180.0),
        (4, 190.0, 190.0),  # a second one
        (5, "1970-01-01T00:01:00Z", 180.0),
        (8, 300.0, 300.0),  # was shown nothing
    ]
    report = experiment_report(logged(tmp_path, exposures, events))
    assert (report.rates["a"].users, report.rates["a"].converted) == (7, 3)
    assert (report.rates["b"].users, report.rates["b"].converted, report.notes) == (1, 0, [])


def test_users_from_before_a_change_of_the_settings_are_left_out_and_said(tmp_path):
    before = [(user, "ab"[user % 2], 1.0, {"settings": "x"}) for user in range(300)]
    after = [(user, "ab"[user % 3 > 0], 2.0, {"settings": "y"}) for user in range(200, 600)]
    report = experiment_report(logged(tmp_path, before + after, [(user, 3.0, 3.0) for user in range(300)]))
    assert sum(one.users for one in report.rates.values()) == 300
    assert not any(one.converted for one in report.rates.values())
    (note,) = report.notes
    moved = sum(user % 2 != (user % 3 > 0) for user in range(200, 300))
    assert "Only the 300 users who came since" in note and f"the 300 who came before are left out ({moved} of" in note
    assert report.mismatch == mismatch(np.array([user % 3 > 0 for user in range(300, 600)], int), [1.0, 1.0])


def test_a_change_of_shares_is_a_change_of_settings_and_a_stopped_variant_has_no_verdict(tmp_path):
    simulated(tmp_path, {"a": 1.0, "b": 1.0}, {"a": 0.1, "b": 0.3}, users=1000)
    assert not experiment_report(tmp_path).notes
    moved = {"shares": {"a": 1.0, "b": 0.0}}
    report = experiment_report(logged(tmp_path, [(user, "a", 5.0, moved) for user in range(500, 1500)]))
    assert report.rates["a"].users == 500 and report.rates["b"].users == 0 and report.differences == {}
    assert "the 1,000 who came before" in report.notes[0] and report.conclusion.startswith("No conclusion: only one")
    assert report.mismatch == 1


def test_a_log_that_an_earlier_version_began_goes_on(tmp_path):
    """Earlier versions logged no hash of the settings; with the same shares they are taken for the same."""
    exposures = [(user, "ab"[user % 2], 1.0, {"settings": "x"} if user > 100 else {}) for user in range(200)]
    report = experiment_report(logged(tmp_path, exposures))
    assert report.rates["a"].users == 100 and report.notes == []


def test_users_who_saw_several_variants_are_counted_for_the_first_and_said(tmp_path):
    exposures = [(user, "ab"[user % 2], 1.0) for user in range(400)] + [(user, "a", 2.0) for user in range(40)]
    report = experiment_report(logged(tmp_path, exposures, [(1, 3.0, 3.0)]))
    assert (report.rates["a"].users, report.rates["b"].users, report.rates["b"].converted) == (200, 200, 1)
    (note,) = report.notes
    assert note.startswith("20 users were shown lists of several variants")
    assert note in " ".join(call("experiment", "report", tmp_path)[1].split())


def test_the_settings_in_the_log_change_with_what_users_see_and_not_with_traffic_or_shadows(recommender, tmp_path):
    def settings(folder, **changes):
        one = {"name": "e", "variants": {"a": {}, "b": {}, "c": {"shadow": True}}, **changes}
        config = ServingConfig.model_validate({"experiments": [one]})
        service = Service(recommender, config, tmp_path / folder)
        service.lists([Query(user_id="u000")])
        service.close()
        return next(iter(read_events(tmp_path / folder / "exposures")))["settings"]

    same = settings("same")
    assert settings("traffic", traffic=1.0, variants={"a": {}, "b": {}}) == same
    assert settings("salt", salt="other") != same
    assert settings("config", variants={"a": {}, "b": {"config": NO_PILOTS}}) != same
    assert settings("share", variants={"a": {}, "b": {"share": 2.0}}) != same


def test_the_overlap_of_a_shadow_is_the_mean_share_of_the_shown_items(tmp_path):
    shadows = [
        (n, "c", 1.5, {"shadow": True, "recommendation_id": str(n), "items": items})
        for n, items in enumerate([[1, 2], [2, 3], [8, 9], [7]])
    ]
    shown = [(n, "a", 1.0) for n in range(3)] + [(3, "b", 1.0, {"items": []})]
    assert experiment_report(logged(tmp_path, shown + shadows)).shadows == {"c": {"lists": 3, "overlap": 0.5}}
