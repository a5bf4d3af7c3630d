"""Models that count are state: the counts end at the moment that is evaluated."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import changed, with_column
from small import small_dataset
from test_classical import MODELS, fit, scores

from anyrec.data.split import NOW
from anyrec.recommender import Recommender

TIME = {"protocol": "global_time", "validation": 0.2, "test": 0.2}
COUNTING = ["popularity", "recent_popularity", "trending"]
COUNTED = {"half_life_days": 0.05}


def made(name, data=None, **changes):
    options = COUNTED if name == "recent_popularity" else {}
    return fit(name, small_dataset() if data is None else data, **{"split": TIME, **options, **changes})


def counts(recommender, *parts):
    """(items,) number of positive users of each item in the parts of the split."""
    data, split = recommender.dataset, recommender.model.split
    rows = np.concatenate([split.rows(part) for part in parts])
    pairs = np.unique(np.stack([data.user_rows[rows], data.item_rows[rows]]), axis=1)
    return np.bincount(pairs[1], minlength=len(data.items))


def test_popularity_counts_what_happened_before_the_part_and_everything_for_serving():
    model = made("popularity").model
    recommender = made("popularity")
    for state, parts in (
        (model.before("validation"), ["train"]),
        (model.before("test"), ["train", "validation"]),
        (model, ["train", "validation", "test"]),
    ):
        np.testing.assert_array_equal(scores(state), np.tile(counts(recommender, *parts), (60, 1)))
        np.testing.assert_array_equal(state.scorer.popularity, counts(recommender, *parts))


def test_a_refit_changes_no_count():
    plain, refit = made("popularity").model, made("popularity", training={"refit": True}).model
    for one, other in ((plain, refit), (plain.before("test"), refit.before("test"))):
        np.testing.assert_array_equal(scores(one), scores(other))


@pytest.mark.parametrize("name", COUNTING)
def test_each_user_is_scored_by_the_counts_of_the_own_moment(name):
    model = made(name).model
    levels = np.resize([0, 1, 2, NOW], 60)
    found = scores(model.before(levels))
    before_train = [] if model.reads_history else [(0, "validation")]  # histories are empty before the training part
    for level, part in [*before_train, (1, "validation"), (2, "test")]:
        np.testing.assert_array_equal(found[levels == level], scores(model.before(part))[levels == level])
    np.testing.assert_array_equal(found[levels == NOW], scores(model)[levels == NOW])


def test_users_without_a_history_get_the_popularity_before_their_moment():
    data = small_dataset()
    some = np.array([user != "u000" for user in data.interactions["user_id"].to_pylist()])
    recommender = made("ease", changed(data, interactions=data.interactions.filter(some)))
    for state, parts in (
        (recommender.model.before("validation"), ["train"]),
        (recommender.model.before("test"), ["train", "validation"]),
        (recommender.model, ["train", "validation", "test"]),
    ):
        np.testing.assert_array_equal(scores(state)[0], counts(recommender, *parts))


@given(data=st.data())
@settings(max_examples=4, deadline=None)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "bpr_mf"])
def test_interactions_at_or_after_a_part_change_no_score_before_it(name, data):
    """For all models; bpr_mf does not repeat itself."""
    world = small_dataset(users=30, items=20, each=6)
    part = data.draw(st.sampled_from(["validation", "test"]))
    plain = made(name, world)
    split = plain.model.split
    late = np.concatenate([split.test, split.validation]) if part == "validation" else split.test
    items = world.interactions["item_id"].to_pylist()
    assert plain.dataset.interactions["item_id"].to_pylist() == items  # the rows of the split are those of the file
    for row in data.draw(st.lists(st.sampled_from(list(late)), min_size=1, max_size=20)):
        items[row] = f"i{data.draw(st.integers(0, 19)):03d}"
    other = made(name, changed(world, interactions=with_column(world.interactions, "item_id", items)))
    if len(other.model.split.train) != len(split.train):  # a pair that recurs is not held out twice
        return
    levels = np.resize([1, 2] if part == "test" else [1], 30)
    for level in (part, levels):
        np.testing.assert_array_equal(scores(other.model.before(level)), scores(plain.model.before(level)))


@pytest.mark.parametrize("name", COUNTING)
def test_counts_of_every_moment_are_saved(name, tmp_path):
    fitted = made(name)
    loaded = Recommender.load(fitted.save(tmp_path / "model"))
    levels = np.resize([1, 2, NOW], 60)
    for moment in ("validation", "test", levels):
        np.testing.assert_array_equal(scores(loaded.model.before(moment)), scores(fitted.model.before(moment)))
    np.testing.assert_array_equal(scores(loaded), scores(fitted))
    assert loaded.with_data(small_dataset()).evaluate("test") == fitted.metrics["test"]


def test_a_model_saved_without_past_counts_scores_by_those_it_has():
    fitted = made("popularity")
    older = replace(fitted.model, past=None)
    np.testing.assert_array_equal(scores(older.before("validation")), scores(older))
