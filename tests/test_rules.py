"""Rules, each against a plain reading of what it says; and what they promise whatever the lists."""

import datetime as dt
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from asked import NOW, ask, lists_of, make, ranked, same_items
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.core.errors import ConfigError
from anyrec.data.histories import COLUMN
from anyrec.pipeline.reranking.greedy_choice import dpp, mmr
from anyrec.pipeline.reranking.reorder import relevance
from anyrec.pipeline.rules.calibrate import divergence, mix_of, own_mix

TIME = pa.timestamp("us", "UTC")
UTC = dt.timezone.utc
GENRES = ["drama", "comedy", "noir", "sport"]
GENRE = "item.categorical.genre"


def world(items=12, users=3, dim=4, seed=0):
    """A request of several users, with vectors, categories, times and some of each missing."""
    rng = np.random.default_rng(seed)
    genres = [sorted({GENRES[n] for n in rng.integers(0, 4, rng.integers(0, 3))}) or None for _ in range(items)]
    days = [
        None
        if rng.random() < 0.2
        else [dt.datetime(2024, 5, 30, tzinfo=UTC) - dt.timedelta(days=int(rng.integers(0, 900)))]
        for _ in range(items)
    ]
    columns = {
        "categorical.genre": pa.array(genres, pa.list_(pa.string())),
        "categorical.kind": [GENRES[n] for n in rng.integers(0, 4, items)],
        "temporal.released": pa.array(days, pa.list_(TIME)),
    }
    seen = {(user, int(item)) for user in range(users) for item in rng.integers(0, items, 4)}
    return ask(
        columns,
        {"user_id": [f"u{n}" for n in range(users)]},
        vectors=rng.normal(size=(items, dim)),
        seen=seen,
        seed=seed,
    ), rng


REORDER = [
    ("diversity", {"method": "max_per_category", "feature": GENRE, "max": 1}),
    ("diversity", {"method": "mmr", "relevance": 0.3}),
    ("diversity", {"method": "dpp", "relevance": 0.3}),
    ("freshness", {"feature": "item.temporal.released", "half_life_days": 90}),
    ("freshness", {"feature": "item.temporal.released", "half_life_days": 90, "method": "add"}),
    ("boost", {"where": {GENRE: {"overlaps": ["noir", "sport"]}}, "factor": 5}),
    ("boost", {"where": {GENRE: {"contains": "noir"}}, "add": -2}),
    ("quota", {"feature": GENRE, "at_least": {"noir": 2}, "at_most": {"*": 0.4}}),
    ("calibrate", {"feature": GENRE, "weight": 0.8}),
    ("explore", {"positions": [1, 3], "epsilon": 0.5, "pool": 4}),
    ("explore", {"positions": [2], "method": "thompson"}),
    ("pin", {"items": [{"item": "i1", "position": 2}]}),
]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(1, 14), st.floats(-1e4, 1e4), st.data())
@pytest.mark.parametrize("rule, options", REORDER)
def test_reordering_keeps_every_item_once_and_is_deterministic(rule, options, seed, k, shift, data):
    request, rng = world(seed=seed)
    lengths = data.draw(st.lists(st.integers(0, 12), min_size=3, max_size=3))
    if rule == "pin":  # a pinned item comes in where it was not
        lengths = [12, 12, 12]
    before = ranked(rng.normal(size=(3, 12)) + shift, lengths)
    kept = before.items.copy(), before.scores.copy()
    after = make(rule, **options).apply(request, before, k)
    assert (before.items == kept[0]).all() and (before.scores == kept[1]).all()
    if rule != "pin":
        assert same_items(before, after)
        assert ((after.scores > -np.inf) == (after.items >= 0)).all()
    assert (np.sort(after.items, 1)[:, -12:] == np.sort(before.items, 1)).all()
    again, _ = world(seed=seed)
    if rule != "explore":
        assert (make(rule, **options).apply(again, before, k).items == after.items).all()


@pytest.mark.parametrize("rule, options", [*REORDER[3:7], *REORDER[:3], REORDER[8]])
def test_the_scale_and_the_sign_of_scores_do_not_matter(rule, options):
    request, rng = world(seed=5)
    scores = rng.normal(size=(3, 12))
    one = make(rule, **options).apply(request, ranked(scores), 5).items
    assert (make(rule, **options).apply(request, ranked(scores * 1000 - 7000), 5).items == one).all()


@pytest.mark.parametrize("rule, options", REORDER)
def test_empty_lists_and_requests_without_users_are_accepted(rule, options):
    request, _ = world(users=0)
    rule = make(rule, **options)
    for before in (ranked(np.zeros((0, 12))), ranked(np.zeros((0, 0)))):
        assert rule.apply(request, before, 5).items.shape[0] == 0
    request, _ = world(users=2)
    assert (rule.apply(request, ranked(np.zeros((2, 12)), [0, 0]), 5).items < 0).sum() >= 20


# -- filters -----------------------------------------------------------------------------------------------------------


SHOP = {
    "categorical.stock": ["yes", "no", None, "yes"],
    "continuous.left": [3.0, 0.0, None, 1.0],
    "temporal.from": pa.array(
        [[dt.datetime(2024, 5, 1)], [dt.datetime(2024, 7, 1)], None, [dt.datetime(2024, 6, 1)]], pa.list_(TIME)
    ),
    "temporal.to": pa.array([[dt.datetime(2024, 5, 20)], None, None, [dt.datetime(2025, 6, 1)]], pa.list_(TIME)),
}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"feature": "item.continuous.left"}, [1, 0, 0, 1]),
        ({"feature": "item.continuous.left", "missing": "keep"}, [1, 0, 1, 1]),
        ({"feature": "item.categorical.stock", "values": ["yes"]}, [1, 0, 0, 1]),
        ({"feature": "item.categorical.stock", "values": ["no"], "mode": "never"}, [1, 0, 1, 1]),
        ({"feature": "item.categorical.stock", "values": ["no"], "mode": "never", "missing": "drop"}, [1, 0, 0, 1]),
        ({"items": ["i0", "i3"]}, [1, 0, 0, 1]),
        ({"items": ["i0"], "mode": "never"}, [0, 1, 1, 1]),
        ({"items": ["i0"], "mode": "never", "since": "2024-06-02"}, [1, 1, 1, 1]),
        ({"items": ["i0"], "mode": "never", "since": "now-1d", "until": "now+1d"}, [0, 1, 1, 1]),
        ({"since": "item.temporal.from", "until": "item.temporal.to"}, [0, 0, 1, 1]),
    ],
)
def test_availability_lists_available_items(options, expected):
    request = ask(SHOP)
    rule = make("availability", **options)
    rule.check(request.model)
    assert rule.allowed(request).astype(int).tolist() == expected


def test_an_availability_file_is_read_again_when_it_changes(tmp_path):
    request, path = ask(SHOP), tmp_path / "there.txt"
    path.write_text("i0\ni9\n")
    rule = make("availability", file=str(path))
    assert rule.allowed(request).tolist() == [True, False, False, False]
    path.write_text("i0\ni2\ni9\n")
    assert rule.allowed(request).tolist() == [True, False, True, False]
    for name, content in {"a.json": '["i1"]', "b.jsonl": '{"item_id": "i1"}\n', "c.csv": "item_id\ni1\n"}.items():
        (tmp_path / name).write_text(content)
        assert make("availability", file=str(tmp_path / name)).allowed(request).tolist() == [False, True, False, False]


AUDIENCES = {
    "categorical.ages": [["child", "teen"], ["adult"], None],
    "continuous.min_age": [0.0, 18.0, None],
    "continuous.max_age": [12.0, None, None],
}
PEOPLE = {"categorical.group": ["teen", "adult", None], "continuous.age": [12.0, 40.0, None]}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"item": "item.categorical.ages", "user": "user.categorical.group"}, [[1, 0, 1], [0, 1, 1], [0, 0, 1]]),
        (
            {"item": "item.categorical.ages", "user": "user.categorical.group", "missing": "drop"},
            [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
        ),
        (
            {"item": "item.categorical.ages", "user": "user.categorical.group", "missing_user": "keep"},
            [[1, 0, 1], [0, 1, 1], [1, 1, 1]],
        ),
        (
            {"min": "item.continuous.min_age", "max": "item.continuous.max_age", "user": "user.continuous.age"},
            [[1, 0, 1], [0, 1, 1], [0, 0, 1]],
        ),
        (
            {"min": "item.continuous.min_age", "user": "user.continuous.age", "missing": "drop"},
            [[1, 0, 0], [1, 1, 0], [0, 0, 0]],
        ),
    ],
)
def test_demographic_lists_items_that_are_for_the_user(options, expected):
    request = ask(AUDIENCES, PEOPLE)
    rule = make("demographic", **options)
    rule.check(request.model)
    assert rule.allowed(request).astype(int).tolist() == expected


DAY = 86_400_000_000
EVENTS = [[(0, 400, "view"), (0, 10, "view"), (1, 5, "buy"), (2, None, None)], None]


@pytest.mark.parametrize(
    "options, excluded",
    [
        ({}, [0, 1, 2]),
        ({"types": ["buy"]}, [1]),
        ({"types": ["view"]}, [0]),
        ({"within_days": 7}, [1]),
        ({"within_days": 30, "types": ["view"]}, [0]),
        ({"at_least": 2}, [0]),
        ({"at_least": 2, "within_days": 30}, []),
    ],
)
@pytest.mark.parametrize("only", [False, True])
def test_history_excludes_items_by_type_age_and_number_of_interactions_or_lists_only_them(options, excluded, only):
    history = pa.array(
        [
            one and [{"item": i, "time": None if d is None else NOW - d * DAY, "kind": kind} for i, d, kind in one]
            for one in EVENTS
        ],
        COLUMN,
    )
    request = ask(
        {"item_id": ["a", "b", "c", "d"]}, {"user_id": ["u", "v"]}, seen={(0, 0), (0, 1), (0, 2)}, history=history
    )
    found = make("history", **options, only=only).allowed(request)
    assert np.flatnonzero(found[0] if only else ~found[0]).tolist() == excluded
    assert found[1].tolist() == [not only] * 4


# -- order -------------------------------------------------------------------------------------------------------------


def likeness_paid(vectors, scores, chosen, n, weight):
    """The gain of MMR: the score minus the highest cosine with a chosen item."""
    return weight * scores[n] - (1 - weight) * max((vectors[n] @ vectors[m] for m in chosen), default=0)


def volume(vectors, scores, chosen, n, weight):
    """Of DPP: the logarithm of the determinant with it."""
    places = [*chosen, n]
    quality = np.exp(weight / (2 * (1 - weight)) * scores[places])
    kernel = quality[:, None] * (1 + vectors[places] @ vectors[places].T) / 2 * quality[None]
    return np.linalg.slogdet(kernel)[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 8), st.floats(0, 0.95))
def test_mmr_agrees_with_the_formula_of_the_paper(seed, k, weight):
    check_greedy(mmr, likeness_paid, 3, seed, k, weight)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.floats(0.05, 0.9))
def test_dpp_adds_the_item_that_increases_the_determinant_most(seed, k, weight):
    check_greedy(dpp, volume, 8, seed, k, weight)


def check_greedy(method, gain, dim, seed, k, weight):
    """Each chosen item has the highest gain of all that are left."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(2, 7, dim))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    scores, there = rng.random((2, 7)), np.arange(7) < np.array([[7], [4]])
    found = method(vectors, scores, there, k, weight)
    for user in range(2):
        chosen, left = [], [n for n in range(7) if there[user, n]]
        while left and len(chosen) < k:
            gains = [gain(vectors[user], scores[user], chosen, n, weight) for n in left]
            chosen.append(left.pop(int(np.argmax(gains))))
        assert [n for n in found[user].tolist() if n >= 0] == chosen


def test_of_identical_items_dpp_and_mmr_choose_the_first_and_then_a_different_one():
    vectors = [[1, 0], [1, 0], [1, 0], [0, 1]]
    request = ask({"item_id": list("abcd")}, vectors=vectors)
    before = lists_of([(0, 4.0), (1, 3.9), (2, 3.8), (3, 1.0)])
    for method in ("mmr", "dpp"):
        after = make("diversity", method=method, relevance=0.1).apply(request, before, 2)
        assert after.items[0, :2].tolist() == [0, 3] and after.scores[0, :2].tolist() == [4.0, 1.0]
        assert after.items[0, 2:].tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 8), st.integers(1, 4))
def test_max_per_category_holds_while_other_candidates_are_left(seed, k, most):
    request, rng = world(seed=seed)
    before = ranked(rng.normal(size=(3, 12)))
    after = make("diversity", method="max_per_category", feature=GENRE, max=most).apply(request, before, k)
    genres = request.items.column("categorical.genre").to_pylist()
    for user in range(3):
        counts, plain = {}, []
        for item in before.items[user].tolist():
            own = genres[item] or []
            if len(plain) < k and all(counts.get(name, 0) < most for name in own):
                plain.append(item)
                counts.update({name: counts.get(name, 0) + 1 for name in own})
        if len(plain) == k:
            assert after.items[user, :k].tolist() == plain
        else:
            assert any("too few candidates" in one for one in request.warnings)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 8), st.data())
def test_a_quota_is_met_if_possible_and_by_the_best_items(seed, k, data):
    request, rng = world(seed=seed, users=2)
    least = data.draw(st.dictionaries(st.sampled_from(GENRES), st.integers(1, 3), max_size=3))
    most = {
        name: max(data.draw(st.integers(1, 4)), least.get(name, 0))
        for name in data.draw(st.lists(st.sampled_from(GENRES), unique=True))
    }
    if (not least and not most) or sum(least.values()) > k:
        return
    before = ranked(rng.normal(size=(2, 12)))
    after = make("quota", feature="item.categorical.kind", at_least=least, at_most=most).apply(request, before, k)
    kinds = np.array(request.items.column("categorical.kind").to_pylist())
    have = {name: int((kinds == name).sum()) for name in GENRES}
    room = sum(min(have[name], most.get(name, 99)) for name in GENRES)
    possible = all(have[name] >= amount for name, amount in least.items()) and room >= k
    for user in range(2):
        first = after.items[user, :k]
        counts = {name: int((kinds[first] == name).sum()) for name in GENRES}
        assert (
            np.diff([before.items[user].tolist().index(item) for item in first]) > 0
        ).all()  # no more moved than needed
        if possible:
            assert all(counts[name] >= amount for name, amount in least.items())
            assert all(counts[name] <= amount for name, amount in most.items())
            assert not request.warnings
            best = best_within(before.items[user].tolist(), kinds, least, most, k)
            assert first.tolist() == before.items[user][list(best)].tolist()
    assert possible or request.warnings


def best_within(order, kinds, least, most, k):
    """By trying all: the places of the choice of k within the bounds that stand highest in sum."""
    fitting = (
        places
        for places in combinations(range(len(order)), k)
        if within([kinds[order[q]] for q in places], least, most)
    )
    return min(fitting, key=sum)


def within(own, least, most):
    return all(own.count(name) >= n for name, n in least.items()) and all(
        own.count(name) <= n for name, n in most.items()
    )


def test_a_fraction_is_rounded_up_for_at_least_and_down_for_at_most():
    request = ask({"categorical.kind": ["a"] * 6 + ["b"] * 6})
    before = ranked([np.arange(12)[::-1]])
    after = make("quota", feature="item.categorical.kind", at_least={"b": 0.25}).apply(request, before, 5)
    assert after.items[0, :5].tolist() == [0, 1, 2, 6, 7]
    after = make("quota", feature="item.categorical.kind", at_most={"*": 0.5}).apply(request, before, 5)
    assert (
        after.items[0, :5].tolist() == [0, 1, 2, 6, 7] and "at_most could not be kept for 1 of 1" in request.warnings[0]
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 8), st.floats(0, 1))
def test_calibrate_never_increases_the_divergence_and_changes_nothing_at_weight_0(seed, k, weight):
    request, rng = world(seed=seed)
    before = ranked(rng.normal(size=(3, 12)))
    rule = make("calibrate", feature=GENRE, weight=weight)
    after = rule.apply(request, before, k)
    values = rule.features.of(request, GENRE)
    own = own_mix(values, request.seen, 3)
    codes = values.padded()
    places = np.broadcast_to(np.arange(k), (3, k))
    kl = [divergence(own, mix_of(codes[lists.items], places, own.shape[1]), 0.01) for lists in (before, after)]
    assert (kl[1] <= kl[0] + 1e-12).all()
    if weight == 0:
        assert (after.items == before.items).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.floats(0.1, 1))
def test_calibrate_agrees_with_the_formula_of_the_paper(seed, k, weight):
    request, rng = world(seed=seed, users=1)
    before = ranked(rng.normal(size=(1, 12)))
    after = make("calibrate", feature=GENRE, weight=weight).apply(request, before, k)
    genres = request.items.column("categorical.genre").to_pylist()

    def mix(items):
        shares = [{name: 1 / len(genres[item]) for name in genres[item]} for item in items if genres[item]]
        return {name: sum(share.get(name, 0) for share in shares) / max(1, len(shares)) for name in GENRES}

    own = mix([int(item) for item in request.seen[1]])

    def kl(items):
        found = mix(items)
        return sum(p * np.log(p / (0.99 * found[name] + 0.01 * p)) for name, p in own.items() if p)

    scores = dict(zip(before.items[0].tolist(), relevance(before)[0].tolist(), strict=True))
    found, first = after.items[0, :k].tolist(), before.items[0, :k].tolist()

    def gain(items):
        return (1 - weight) * sum(scores[item] for item in items) - weight * kl(items)

    chosen = []
    for place in range(k):  # of items with equal gains, which rounding orders, the one that was taken
        left = [n for n in before.items[0].tolist() if n not in chosen]
        gains = [gain([*chosen, n]) for n in left]
        ties = [n for n, one in zip(left, gains, strict=True) if one >= max(gains) - 1e-9]
        chosen.append(found[place] if found[place] in ties and found[:place] == chosen else ties[0])
    assert found == (chosen if kl(chosen) < kl(first) - 1e-12 else first)


def test_freshness_halves_the_odds_with_each_half_life_and_gives_items_without_a_time_the_mean():
    times = [[dt.datetime(2024, 6, 1, tzinfo=UTC) - dt.timedelta(days=days)] for days in (0, 30, 60)]
    request = ask({"temporal.t": pa.array([*times, None, [dt.datetime(2030, 1, 1, tzinfo=UTC)]], pa.list_(TIME))})
    before = lists_of([(0, -1.0), (1, -1.0), (2, -1.0), (3, -1.0), (4, -1.0)])
    after = make("freshness", feature="item.temporal.t", half_life_days=30).apply(request, before, 5)
    score = dict(zip(after.items[0].tolist(), after.scores[0].tolist(), strict=True))
    assert score[0] == pytest.approx(-1.0) and score[4] == pytest.approx(-1.0)  # items of the future have freshness 1
    assert [score[1], score[2]] == pytest.approx([-1 + np.log(0.5), -1 + np.log(0.25)])
    assert score[3] == pytest.approx(np.mean([score[0], score[1], score[2], score[4]]))
    dropping = make("freshness", feature="item.temporal.t", half_life_days=30, missing="drop")
    assert dropping.allowed(request).tolist() == [True, True, True, False, True]


def test_freshness_reads_years_and_seconds_too():
    request = ask({"continuous.year": [1990.0, 2020.0], "continuous.at": [NOW / 1e6 - 86_400 * 365, NOW / 1e6]})
    before = lists_of([(0, 1.1), (1, 1.0)])
    for feature, unit in (("year", "year"), ("at", "unix")):
        rule = make("freshness", feature=f"item.continuous.{feature}", unit=unit, half_life_days=100)
        rule.check(request.model)
        assert rule.apply(request, before, 2).items.tolist() == [[1, 0]]


def test_a_boost_by_a_factor_multiplies_the_odds():
    request = ask({"categorical.kind": ["a", "b", "a"]})
    before = lists_of([(0, 1.0), (1, 0.5), (2, -0.5)])
    spread = before.scores[0].std()
    after = make("boost", where={"item.categorical.kind": "b"}, factor=3).apply(request, before, 3)
    assert after.items.tolist() == [[1, 0, 2]] and after.scores[0, 0] == pytest.approx(0.5 + spread * np.log(3))
    assert make("boost", where={"item.categorical.kind": "z"}, factor=3).apply(request, before, 3) is before


def test_a_boost_may_differ_by_user():
    request = ask({"categorical.kind": ["a", "b"]}, {"categorical.likes": ["a", "b"]})
    before = lists_of([(0, 1.0), (1, 0.9)], [(0, 1.0), (1, 0.9)])
    after = make("boost", where={"item.categorical.kind": {"eq": "user.categorical.likes"}}, add=3).apply(
        request, before, 2
    )
    assert after.items.tolist() == [[0, 1], [1, 0]]


def test_a_pin_puts_the_item_at_its_position_for_users_who_may_be_shown_it():
    request = ask({"item_id": list("abcde")}, {"user_id": ["u", "v", "w"], "categorical.land": ["no", "no", "se"]})
    request.allowed = np.array([[True] * 5, [True] * 5, [True, True, True, True, False]])
    request.exclude = np.array([1]), np.array([4])
    before = lists_of([(0, 5.0), (1, 4.0), (2, 3.0)], [(2, 5.0), (1, 4.0)], [(0, 5.0), (1, 4.0), (4, 3.0)])
    rule = make(
        "pin",
        items=[{"item": "e", "position": 2}, {"item": "b", "position": 1, "where": {"user.categorical.land": "no"}}],
    )
    rule.check(request.model)
    after = rule.apply(request, before, 3)
    assert [[item for item in row if item >= 0] for row in after.items.tolist()] == [[1, 4, 0, 2], [1, 2], [0, 1, 4]]
    assert np.isfinite(after.scores[after.items >= 0]).all()


def test_a_pin_past_the_end_comes_last():
    request = ask({"item_id": list("abcde")})
    after = make("pin", items=[{"item": "e", "position": 10}]).apply(request, lists_of([(0, 5.0), (1, 4.0)]), 3)
    assert after.items.tolist() == [[0, 1, 4]]


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, options, where, said",
    [
        ("availability", {"feature": "item.continuous.lefft"}, "/feature", "Did you mean 'item.continuous.left'"),
        ("availability", {"feature": "item.categorical.stock"}, "/feature", "holds texts"),
        ("availability", {"items": ["i0", "i77"]}, "/items/1", "no item has the id 'i77'"),
        ("availability", {"since": "someday"}, "/since", "expected a time"),
        ("availability", {"file": "no/such/file.txt"}, "/file", "cannot be read"),
        ("demographic", {"user": "user.categorical.x", "item": "item.categorical.stock"}, "/user", "no user feature"),
        (
            "demographic",
            {"user": "user.categorical.group", "min": "item.continuous.left"},
            "/user",
            "numbers are needed",
        ),
        (
            "where",
            {"where": {"item.continuous.left": "x"}},
            "/where/item.continuous.left/eq",
            "expected a finite number",
        ),
        ("boost", {"where": {"item.a.b": 1}, "factor": 2}, "/where/item.a.b", "no feature 'item.a.b'"),
        ("freshness", {"feature": "item.continuous.left", "half_life_days": 1}, "/feature", "times are needed"),
        (
            "diversity",
            {"method": "max_per_category", "feature": "item.continuous.left"},
            "/feature",
            "texts are needed",
        ),
        ("diversity", {"method": "mmr"}, "/method", "has none"),
        (
            "quota",
            {"feature": "item.categorical.stock", "at_least": {"yess": 1}},
            "/at_least/yess",
            "Did you mean 'yes'",
        ),
        ("calibrate", {"feature": "item.temporal.to"}, "/feature", "texts are needed"),
        ("pin", {"items": [{"item": "zz", "position": 1}]}, "/items/0/item", "no item has the id"),
        ("explore", {"positions": [1], "method": "thompson", "state": "none.json"}, "/state", "cannot be read"),
        (
            "http",
            {"url": "http://localhost:1", "item_features": ["item.text.t"]},
            "/item_features/0",
            "no item feature",
        ),
    ],
)
def test_options_that_do_not_fit_the_data_are_named(rule, options, where, said):
    request = ask(SHOP, PEOPLE)
    with pytest.raises(ConfigError) as caught:
        make(rule, **options).check(request.model)
    fault = caught.value.faults[0]
    assert fault.where == where and said in str(fault)


@pytest.mark.parametrize(
    "rule, options, said",
    [
        ("where", {"where": {"item.a.b": {"leq": 1}}}, "no operator 'leq'"),
        ("availability", {}, "at least one of"),
        ("demographic", {"user": "user.a.b"}, "either item"),
        ("boost", {"where": {"item.a.b": 1}}, "either factor or add"),
        ("diversity", {"method": "max_per_category"}, "give feature with"),
        ("quota", {"feature": "item.a.b"}, "give at_least"),
        ("quota", {"feature": "item.a.b", "at_least": {"x": 3}, "at_most": {"x": 2}}, "above at_most for x"),
        ("explore", {"positions": [0]}, "/positions/0: .* greater than or equal to 1"),
        ("http", {"url": "file:///etc/passwd"}, "begins with http"),
    ],
)
def test_conflicting_options_are_refused(rule, options, said):
    with pytest.raises(ConfigError, match=said):
        make(rule, **options)
