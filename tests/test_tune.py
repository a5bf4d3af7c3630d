"""The options of classical models are chosen on validation, by steps from the defaults."""

import numpy as np
import pytest
from pydantic import Field
from small import small_dataset

from anyrec.core.config import Config
from anyrec.core.contracts import Classical, Context, Params, Step
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.data.learning import LearningData
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.interaction.classical import EASE
from anyrec.training.fit import fit
from anyrec.training.fit_classical import past_matrix
from anyrec.training.tune import FEWEST_TRIALS, TRIALS, popular_part, sample_users, trials_for, tune

METRIC = "ndcg@10"
DATA = {"users": 300, "items": 40, "each": 12}


class Planted(Classical):
    """Knows all interactions, and adds noise to them that grows with the distance of the options from the best ones."""

    type = "planted"
    search = {"size": 2.0, "rate": 3.0, "power": Step(0.25)}
    best = {"size": 64, "rate": 0.1, "power": 1.0}

    class Params(Params):
        size: int = Field(16, ge=1, le=512)
        rate: float | None = Field(None, ge=1e-6, le=1e6)
        power: float = Field(0.5, ge=-1, le=1)

    def automatic(self, training):
        return {"rate": 0.9}

    def fit(self, training):
        data = small_dataset(**DATA).sorted()
        distance = abs(np.log2(self.params.size / self.best["size"]))
        distance += abs(np.log(self.params.rate / self.best["rate"])) / np.log(3)
        distance += abs(self.params.power - self.best["power"]) / 0.25
        self.scores = np.random.default_rng(0).normal(size=training.matrix.shape) * (1 + distance)
        self.scores[data.user_rows, data.item_rows] += 2

    def score(self, rows, matrix):
        return self.scores[rows].astype(np.float32)


@pytest.fixture(scope="module")
def registry():
    found = discover()
    found.add_class("classical", Planted, "tests")
    return found


def learned(config):
    return LearningData.make(small_dataset(**DATA).sorted(), config)[0]


def made(**changes):
    return Config.model_validate({"split": {"protocol": "leave_last_n", "last_n": 2}, **changes})


def tuned(registry, name="planted", config=None, **options):
    config = config or made()
    return tune(learned(config), config, registry, Context(), name, **options)


def test_each_option_climbs_to_its_best_value(registry):
    found = tuned(registry)
    assert found.options == {"size": 64, "rate": pytest.approx(0.1, rel=1e-3), "power": 1.0}
    assert found.value == max(value for _, value in found.tried) > found.tried[0][1]


def test_the_last_steps_are_half_as_large(registry, monkeypatch):
    monkeypatch.setattr(Planted, "best", {"size": 64, "rate": 0.1 * 3**0.5, "power": 0.625})
    found = tuned(registry, trials=100)
    assert found.options == {"size": 64, "rate": pytest.approx(0.1 * 3**0.5, rel=1e-3), "power": 0.625}


def test_tuning_starts_at_the_defaults_and_at_automatic_values(registry):
    assert tuned(registry).tried[0][0] == {"size": 16, "rate": 0.9, "power": 0.5}


def test_the_best_value_of_an_option_has_worse_neighbours_on_both_sides_unless_it_is_at_a_bound(registry):
    found = tuned(registry)
    others = [options for options, _ in found.tried]
    for option, near in (("size", (32, 128)), ("rate", (0.1 / 3, 0.3))):
        for value in near:
            assert any(
                one[option] == pytest.approx(value, rel=1e-3)
                and all(one[other] == found.options[other] for other in one if other != option)
                for one in others
            )
    assert found.options["power"] == 1.0  # at its bound: 1.25 is not tried
    assert all(one["power"] <= 1 for one in others)


def test_the_value_is_the_metric_of_the_model_on_validation_and_the_model_is_as_fit_returns_it(registry):
    config = made()
    found = tuned(registry, "ease", config)
    assert found.value == ranking_metrics(rank_held_out(found.model, "validation"), [10])[METRIC]
    options = {"type": "ease", **found.options}
    again = fit(made(model=options), learned(config), registry, Context()).model
    np.testing.assert_array_equal(again.scorer.classical.weights, found.model.scorer.classical.weights)


def test_a_model_of_many_items_is_tuned_on_popular_ones_and_fitted_on_all(registry, monkeypatch):
    sizes = []
    usual = EASE.fit

    def fit_and_count(self, training):
        sizes.append(len(np.unique(training.items)))
        usual(self, training)

    monkeypatch.setattr(EASE, "fit", fit_and_count)
    monkeypatch.setattr(EASE, "tuned_items", 15)
    found = tuned(registry, "ease")
    assert set(sizes[:-1]) == {15} and sizes[-1] == DATA["items"] and len(sizes) == len(found.tried)
    assert found.compared and found.tried[-1] == (found.options, found.value)
    assert max(found.tried[:-1], key=lambda one: one[1])[0] == found.options
    again = tuned(registry, "ease", asked=found.options)  # one fit, to all items
    np.testing.assert_array_equal(again.model.scorer.classical.weights, found.model.scorer.classical.weights)
    assert again.value == found.value and len(again.tried) == 1 and not again.compared


def test_the_popular_part_keeps_all_pairs_of_the_items_with_the_most_users(registry):
    training = past_matrix(learned(made()), "validation", 0, {})
    counts = np.bincount(training.items, minlength=DATA["items"])
    part = popular_part(training, 10)
    kept = np.argsort(-counts, kind="stable")[:10]
    inside = np.isin(training.items, kept)
    np.testing.assert_array_equal(part.items, training.items[inside])
    np.testing.assert_array_equal(part.users, training.users[inside])
    expected = training.matrix.toarray()
    expected[:, ~np.isin(np.arange(DATA["items"]), kept)] = 0
    np.testing.assert_array_equal(part.matrix.toarray(), expected)
    assert part.days is not None and part.matrix.nnz == len(part.items) == len(part.days)


def test_the_metric_is_that_of_the_training(registry):
    config = made(training={"metric": "recall@5"})
    found = tuned(registry, "ease", config)
    assert found.value == ranking_metrics(rank_held_out(found.model, "validation"), [5])["recall@5"]


def test_no_value_above_a_limit_is_tried_unless_it_is_set(registry, monkeypatch):
    monkeypatch.setattr(Planted, "search_limits", {"size": 32})
    assert {options["size"] for options, _ in tuned(registry).tried} == {16, 32}
    assert tuned(registry, asked={"size": 64}, trials=2).options["size"] == 64


def test_options_that_are_set_are_not_tuned(registry):
    found = tuned(registry, asked={"size": 16})
    assert {options["size"] for options, _ in found.tried} == {16}
    assert found.options == {"size": 16, "rate": pytest.approx(0.1, rel=1e-3), "power": 1.0}
    with pytest.raises(ConfigError):
        tuned(registry, asked={"sise": 16})


def test_a_model_that_is_too_far_behind_is_not_tuned(registry):
    first = tuned(registry).tried[0][1]
    assert tuned(registry, worth=first * 1.01).tried == [tuned(registry).tried[0]]
    assert len(tuned(registry, worth=first).tried) > 1


def test_no_options_are_tried_twice_and_no_more_than_the_trials(registry):
    found = tuned(registry)
    assert len({repr(options) for options, _ in found.tried}) == len(found.tried) <= TRIALS
    for trials in (1, 4):
        few = tuned(registry, trials=trials)
        assert few.tried == found.tried[:trials]


def test_tuning_again_gives_the_same(registry):
    first, second = tuned(registry, users=100), tuned(registry, users=100)
    assert first.tried == second.tried and first.options == second.options


def test_a_model_without_options_to_tune_is_fitted_once_and_measured(registry):
    for name in ("content_knn", "popularity"):
        found = tuned(registry, name)
        assert found.options == {} and len(found.tried) == 1 and 0 < found.value < 1


@pytest.mark.parametrize("protocol", ["none", "leave_last_out"])
def test_without_validation_targets_a_model_has_its_defaults(registry, protocol):
    config = made(split={"protocol": protocol})
    data = small_dataset(each=2 if protocol == "leave_last_out" else 8).sorted()
    learning = LearningData.make(data, config)[0]
    found = tune(learning, config, registry, Context(), "ease")
    assert np.isnan(found.value) and len(found.tried) == 1 and found.options == {"l2": 200.0}


def test_a_sample_of_the_validation_users_is_measured():
    config = made()
    learning = learned(config)
    everyone = np.unique(learning.dataset.user_rows[learning.held_out("validation")])
    drawn = sample_users(learning, 40, 7)
    assert len(np.unique(drawn)) == 40 and np.isin(drawn, everyone).all()
    np.testing.assert_array_equal(drawn, sample_users(learning, 40, 7))
    assert not np.array_equal(drawn, sample_users(learning, 40, 8))
    np.testing.assert_array_equal(sample_users(learning, 10_000, 7), everyone)


def test_more_data_has_fewer_trials():
    assert trials_for(1000, 10) == trials_for(1_000_000, 10_000) == TRIALS
    assert trials_for(2_000_000, 100) == TRIALS // 2 and trials_for(100, 20_000) == max(TRIALS // 4, FEWEST_TRIALS)
    assert trials_for(10**9, 10**6) == FEWEST_TRIALS
