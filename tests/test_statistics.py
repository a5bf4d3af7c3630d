"""Bootstrap intervals, paired comparisons, Holm's correction and correlations, against their definitions."""

from dataclasses import astuple

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anyrec.evaluation.statistics import (
    Comparison,
    bootstrap_means,
    compare_paired,
    holm,
    intervals,
    pearson,
)

DRAWS = {
    "normal": (lambda rng, shape: rng.normal(0.3, 1.0, shape), 0.3),
    "exponential": (lambda rng, shape: rng.exponential(2.0, shape), 2.0),
    "hits or not": (lambda rng, shape: (rng.random(shape) < 0.3).astype(float), 0.3),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("users", [30, 400])
def test_an_interval_equals_the_percentile_interval_of_scipy(kind, users):
    """Both are drawn; with 2,000 and 20,000 samples an end is sure to about 0.06 standard errors."""
    values = DRAWS[kind][0](np.random.default_rng(users), users)
    mine = intervals({"x": values}, seed=3)["x"]
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        vectorized=True,
        batch=1000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    near = 0.3 * values.std() / np.sqrt(users)
    assert mine.low == pytest.approx(theirs.low, abs=near) and mine.high == pytest.approx(theirs.high, abs=near)
    assert mine.mean == pytest.approx(values.mean()) and mine.users == users


@pytest.mark.parametrize("kind", DRAWS)
def test_about_95_percent_of_intervals_contain_the_true_mean(kind):
    draw, truth = DRAWS[kind]
    samples = draw(np.random.default_rng(11), (80, 1000))
    found = intervals({str(n): samples[:, n] for n in range(1000)}).values()
    assert 0.92 < np.mean([one.low <= truth <= one.high for one in found]) < 0.97


def test_a_resampled_mean_is_the_mean_of_users_drawn_with_replacement():
    """With values 1, 10, 100, ... a mean shows how often each of the 5 users was drawn: equally often on average."""
    means = bootstrap_means(10.0 ** np.arange(5)[:, None], seed=1, resamples=4000)[:, 0]
    times = np.array([[int(digit) for digit in f"{round(mean * 5):05d}"] for mean in means])
    assert (times.sum(1) == 5).all()
    assert times.mean(0) == pytest.approx(np.ones(5), abs=0.07)


def test_columns_are_resampled_by_the_same_users_for_every_block_size(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 3))
    whole = bootstrap_means(values, seed=5, resamples=300)
    for place in range(3):
        np.testing.assert_allclose(bootstrap_means(values[:, [place]], seed=5, resamples=300)[:, 0], whole[:, place])
    monkeypatch.setattr("anyrec.evaluation.statistics.CELLS", 50 * 7)
    np.testing.assert_allclose(bootstrap_means(values, seed=5, resamples=300), whole)


def test_users_without_a_value_are_omitted_from_that_metric_only():
    rng = np.random.default_rng(2)
    whole, part = rng.random(40), rng.random(40)
    part[::4] = np.nan
    found = intervals({"whole": whole, "part": part, "none": np.full(40, np.nan)}, seed=1)
    assert found.keys() == {"whole", "part"}
    assert found["part"] == intervals({"x": part[~np.isnan(part)]}, seed=1)["x"]
    assert (found["part"].users, found["whole"].users) == (30, 40)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    scale=st.sampled_from([0.5, 2.0, 4.0]),  # powers of two: nothing is rounded
)
def test_an_interval_scales_with_its_values(values, scale):
    one = intervals({"x": np.array(values)})["x"]
    other = intervals({"x": np.array(values) * scale})["x"]
    assert [other.mean, other.low, other.high] == pytest.approx([one.mean * scale, one.low * scale, one.high * scale])
    assert min(values) - 1e-12 <= one.low <= one.high <= max(values) + 1e-12


def test_an_interval_contains_its_mean():
    for value in (0.61314719, 1 / np.log2(3), 0.1):
        for users in range(1, 40):
            found = intervals({"x": np.full(users, value)})["x"]
            assert found.low <= found.mean <= found.high


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), users=st.integers(5, 60))
def test_the_difference_is_paired_by_user_and_changes_sign_if_the_models_are_swapped(seed, users):
    rng = np.random.default_rng(seed)
    mine, other = rng.random(users), rng.random(users)
    one = compare_paired(mine, {"other": other})["other"]
    back = compare_paired(other, {"mine": mine})["mine"]
    assert one.difference == pytest.approx((mine - other).mean()) and back.difference == pytest.approx(-one.difference)
    assert (back.low, back.high) == pytest.approx((-one.high, -one.low))
    assert one.p == pytest.approx(back.p) and 2.0 ** (1 - users) <= one.p <= 1
    assert astuple(intervals({"gap": mine - other})["gap"])[:3] == pytest.approx(astuple(one)[:3])


@pytest.mark.parametrize("users", [1, 3, 6, 50])
def test_p_of_a_difference_of_one_sign_is_the_least_p_of_a_sign_flip_test(users):
    rng = np.random.default_rng(0)
    weak = rng.random(users)
    better = compare_paired(weak + 0.01, {"weak": weak})["weak"]
    assert better.difference == pytest.approx(0.01) and better.low > 0
    assert better.p == pytest.approx(2.0 ** (1 - users)) and better.significant is (users >= 6)
    same = compare_paired(weak, {"itself": weak})["itself"]
    assert same == Comparison(0.0, 0.0, 0.0, 1.0, 1.0) and not same.significant


@pytest.mark.parametrize("comparisons", [60, 500])
def test_a_clear_difference_is_significant_among_many_comparisons(comparisons):
    rng = np.random.default_rng(5)
    mine = rng.normal(0, 1, 300)
    others = {str(n): mine + rng.normal(0, 1, 300) for n in range(comparisons - 1)}
    found = compare_paired(mine, {"worse": mine - rng.normal(0.5, 1, 300), **others})
    assert found["worse"].significant and found["worse"].corrected < 1e-6
    assert sum(one.significant for one in found.values()) == 1


def test_a_small_p_is_that_of_the_t_test_and_falls_as_the_difference_grows():
    rng = np.random.default_rng(8)
    mine, noise = rng.normal(size=400), rng.normal(0, 1, 400)
    last = 1.0
    for shift in (0.1, 0.13, 0.16, 0.2, 0.3, 0.5):
        found = compare_paired(mine, {"other": mine - shift - noise})["other"].p
        assert found < last
        last = found
        if found < 0.001:
            expected = scipy.stats.ttest_rel(mine, mine - shift - noise).pvalue
            assert found == pytest.approx(expected)


def test_users_without_both_values_are_omitted_from_that_comparison_only():
    rng = np.random.default_rng(2)
    mine, other, part = rng.random(60), rng.random(60), rng.random(60)
    part[::3] = np.nan
    known = ~np.isnan(part)
    found = compare_paired(mine, {"other": other, "part": part, "none": np.full(60, np.nan)}, seed=1)
    alone = compare_paired(mine[known], {"part": part[known]}, seed=1)["part"]
    assert astuple(found["part"])[:4] == pytest.approx(astuple(alone)[:4])
    whole = compare_paired(mine, {"other": other}, seed=1)["other"]
    assert astuple(found["other"])[:4] == pytest.approx(astuple(whole)[:4])
    assert np.isnan(astuple(found["none"])).all() and not found["none"].significant
    two = compare_paired(mine, {"other": other, "part": part}, seed=1)
    assert two["other"].corrected == found["other"].corrected  # nothing was tested, so nothing is corrected for


def test_pairing_detects_a_difference_that_is_small_against_the_spread_between_users():
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 5, 200)
    mine = hard + rng.normal(0.2, 0.5, 200)
    assert compare_paired(mine, {"other": hard})["other"].significant
    assert not compare_paired(mine, {"shuffled": rng.permutation(hard)})["shuffled"].significant


def test_p_is_about_uniform_without_a_difference():
    gaps = np.random.default_rng(7).normal(size=(100, 1500))
    found = compare_paired(np.zeros(100), {str(n): gaps[:, n] for n in range(1500)})
    p = np.array([one.p for one in found.values()])
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    assert 0.035 < (p <= 0.05).mean() < 0.075


def test_p_agrees_with_the_t_test_of_paired_samples():
    rng = np.random.default_rng(9)
    mine = rng.normal(size=200)
    others = {str(shift): mine + rng.normal(shift, 1, 200) for shift in (0.0, 0.05, 0.1, 0.15, 0.2)}
    for name, one in compare_paired(mine, others).items():
        assert one.p == pytest.approx(scipy.stats.ttest_rel(mine, others[name]).pvalue, abs=0.03)


def test_the_correction_is_over_all_comparisons():
    rng = np.random.default_rng(3)
    mine = rng.normal(0.2, 1, 100)
    others = {str(n): mine - rng.normal(0.1 * n, 1, 100) for n in range(6)}
    found = compare_paired(mine, others)
    assert list(found) == list(others)
    corrected = holm(np.array([one.p for one in found.values()]))
    assert [one.corrected for one in found.values()] == corrected.tolist()
    assert all(one.significant is (one.corrected < 0.05) for one in found.values())
    alone = compare_paired(mine, {"3": others["3"]})["3"]
    assert alone.corrected == alone.p == found["3"].p


def test_a_comparison_without_others_or_without_users_is_empty():
    assert compare_paired(np.ones(3), {}) == {}
    assert compare_paired(np.empty(0), {"other": np.empty(0)}) == {}
    assert intervals({"x": np.empty(0)}) == {}


def rejected_by_hand(p, level):
    """Holm's procedure as he wrote it: from the smallest on, reject while p <= level / (tests left), then stop."""
    rejected = [False] * len(p)
    for left, test in zip(range(len(p), 0, -1), sorted(range(len(p)), key=lambda n: p[n]), strict=True):
        if p[test] > level / left:
            break
        rejected[test] = True
    return rejected


CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(p=CHANCES, level=st.floats(0.001, 0.999))
def test_a_corrected_p_is_the_level_from_which_holms_procedure_rejects(p, level):
    assume(all(abs(chance * left - level) > 1e-9 for chance in p for left in range(1, len(p) + 1)))
    assert (holm(np.array(p)) <= level).tolist() == rejected_by_hand(p, level)


@settings(max_examples=200, deadline=None)
@given(p=CHANCES, seed=st.integers(0, 1000))
def test_corrected_ps_keep_their_order_and_are_never_below_the_plain_ones(p, seed):
    plain = np.array(p)
    corrected = holm(plain)
    assert (corrected >= plain).all() and (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(plain, kind="stable")]) >= 0).all()
    assert (corrected <= np.minimum(1, plain * len(plain)) + 1e-12).all()  # never stricter than Bonferroni
    order = np.random.default_rng(seed).permutation(len(plain))
    np.testing.assert_array_equal(holm(plain[order]), corrected[order])


def test_one_in_twenty_families_of_tests_without_a_difference_has_a_significant_one():
    p = np.random.default_rng(0).random((2000, 12))
    assert np.mean([(holm(family) <= 0.05).any() for family in p]) == pytest.approx(0.05, abs=0.015)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 60), slope=st.floats(-3, 3))
def test_a_correlation_is_its_definition_and_its_p_that_of_a_regression(seed, n, slope):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = slope * x + rng.normal(size=n)
    r, p = pearson(x, y)
    dx, dy = x - x.mean(), y - y.mean()
    assert r == pytest.approx(sum(dx * dy) / np.sqrt(sum(dx**2) * sum(dy**2)))
    assert p == pytest.approx(scipy.stats.linregress(x, y).pvalue, abs=1e-9)
    assert pearson(y, x) == pytest.approx((r, p)) and pearson(-x, y) == pytest.approx((-r, p))


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1, 2], [2, 1]), ([], [])])
def test_constant_or_fewer_than_three_values_have_no_correlation(x, y):
    assert pearson(np.array(x, float), np.array(y, float)) == (0.0, 1.0)
