"""Labels: what types, ratings, labels and weights mean, and that only positives are learned from."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_config, small_dataset

from anyrec.core.config import DataConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.interpretation import interpretation, is_negative_name
from anyrec.data.labels import label_interactions, training_weights
from anyrec.pipeline.ranking.signals import item_facts
from anyrec.recommender import Recommender

DAY = 86_400_000_000
YEAR = 365 * DAY


def interactions(rows, **columns):
    """`rows` interactions of as many users with one item."""
    ids = [f"u{row}" for row in range(rows)]
    if "timestamp" in columns:
        columns["timestamp"] = pa.array(columns["timestamp"], pa.timestamp("us", "UTC"))
    table = {"user_id": ids, "item_id": ["i"] * rows, **columns}
    return Dataset(pa.table({"user_id": ids}), pa.table({"item_id": ["i"]}), pa.table(table))


def weights_of(dataset, config, rows=None):
    rows = np.arange(len(dataset.interactions)) if rows is None else rows
    notes = []
    labels = training_weights(label_interactions(dataset, config), dataset, rows, config, notes)
    return labels.weight, notes


def test_a_single_timestamp_in_the_future_leaves_the_other_weights_as_they_are():
    times = np.linspace(0, YEAR, 50).astype(np.int64)
    plain, _ = weights_of(interactions(50, timestamp=times), DataConfig(half_life_days=30))
    with_mistake = interactions(51, timestamp=np.append(times, 100 * YEAR))
    found, notes = weights_of(with_mistake, DataConfig(half_life_days=30))
    assert found[:50] / found[49] == pytest.approx(plain / plain[49])
    assert found[50] == found[49]
    assert "1 of 51 training positives lie more than 10 times data.half_life_days after all others" in notes[0]


def test_ages_are_measured_from_the_newest_training_positive():
    dataset = interactions(4, timestamp=[0, 864e9, 5 * YEAR, 6 * YEAR], label=pa.array([1, 1, 0, 1], pa.int8()))
    found, _ = weights_of(dataset, DataConfig(half_life_days=10), np.arange(3))
    assert found[:2] == pytest.approx([2 / 3, 4 / 3])


def test_a_training_set_whose_weights_are_nearly_all_zero_is_refused_before_training():
    times = [0] * 56 + [20 * YEAR] * 4
    with pytest.raises(DataError, match="56 of 60 training positives are below a millionth"):
        weights_of(interactions(60, timestamp=times), DataConfig(half_life_days=30))
    with pytest.raises(DataError, match="nearly nothing would be learned"):
        weights_of(interactions(60, weight=[1e300] + [1.0] * 59), DataConfig())
    assert weights_of(interactions(3, weight=[1.0, 2.0, 3.0]), DataConfig())[0] == pytest.approx([0.5, 1.0, 1.5])


def visits(users, times=None, **columns):
    """One interaction with an item of its own for each letter of `users`, in the given order of time."""
    items = [f"i{row}" for row in range(len(users))]
    columns |= {} if times is None else {"timestamp": pa.array([day * DAY for day in times], pa.timestamp("us", "UTC"))}
    table = pa.table({"user_id": list(users), "item_id": items, **columns})
    return Dataset(pa.table({"user_id": sorted(set(users))}), pa.table({"item_id": items}), table)


def test_each_half_life_of_later_positives_of_the_same_user_halves_a_weight():
    found, _ = weights_of(visits("aabaa", [1, 2, 9, 4, 3]), DataConfig(half_life_interactions=1))
    assert (found / found.max()).tolist() == [1 / 8, 1 / 4, 1, 1, 1 / 2]
    found, _ = weights_of(visits("aaa", [1, 2, 3]), DataConfig(half_life_interactions=2))
    assert found / found.max() == pytest.approx([0.5, 0.5**0.5, 1])


def test_only_later_positives_of_the_training_part_age_an_interaction():
    data = visits("aaaa", [1, 2, 3, 4], label=pa.array([1, 0, 1, 1], pa.int8()))
    found, _ = weights_of(data, DataConfig(half_life_interactions=1), np.arange(3))
    assert found.tolist() == pytest.approx([2 / 3, 0, 4 / 3, 0])


def test_both_half_lives_multiply_and_neither_applies_without_times():
    both = DataConfig(half_life_interactions=1, half_life_days=1)
    found, _ = weights_of(visits("ab" + "a", [0, 0, 1]), both)
    assert (found / found.max()).tolist() == [1 / 4, 1 / 2, 1]
    assert weights_of(visits("aba"), both)[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("wrong", [-1.0, -1e-9, np.inf])
def test_weights_below_zero_or_infinite_are_faults_of_the_data(wrong):
    dataset = interactions(3, weight=[1.0, wrong, wrong])
    with pytest.raises(DataError, match="/interactions/1/weight: a weight is 0 or more") as caught:
        label_interactions(dataset, DataConfig())
    assert caught.value.counts == {"bad weight": 2}
    data = small_dataset()
    data.interactions = data.interactions.append_column("weight", pa.array([wrong] * len(data.interactions)))
    with pytest.raises(DataError, match="a weight is 0 or more"):
        Recommender.from_config(small_config()).fit(data, progress=False)


def test_a_missing_weight_counts_as_one_and_a_weight_of_zero_as_neither():
    labels = label_interactions(interactions(3, weight=[0.0, float("nan"), None]), DataConfig())
    assert labels.positive.tolist() == [False, True, True]
    assert labels.weight.tolist() == [0.0, 1.0, 1.0]


LARGE = st.floats(0, 1e308, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(st.one_of(st.none(), LARGE), st.integers(-(2**60), 2**60)), min_size=1, max_size=40),
    days=st.one_of(st.none(), st.floats(0.001, 1e6)),
    later=st.one_of(st.none(), st.floats(0.001, 1e6)),
    of_type=st.floats(0, 1e6),
)
def test_training_weights_are_finite_with_mean_one_or_the_data_are_refused(rows, days, later, of_type):
    values, times = zip(*rows, strict=True)
    dataset = interactions(
        len(rows), weight=pa.array(values, pa.float64()), timestamp=list(times), interaction_type=["buy"] * len(rows)
    )
    config = DataConfig(half_life_days=days, half_life_interactions=later, positive_types={"buy": of_type})
    labels = label_interactions(dataset, config)
    try:
        found, _ = weights_of(dataset, config)
    except DataError as error:
        assert "weights near zero" in error.counts
        return
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    if labels.positive.any():
        assert found[labels.positive].mean() == pytest.approx(1)
    assert not found[~labels.positive].any()


NEGATIVE = (
    "return returned dislike refund remove removeFromCart skip skipped downvote thumbs_down unlike Unfollow "
    "not-interested swipe_left cancelled HIDE rejected uninstall"
)


@pytest.mark.parametrize("name", [*NEGATIVE.split(), "don't like", "won't buy", "-1", "👎", "Retoure", "chargeback"])
def test_names_that_say_the_opposite_of_liking_are_recognised(name):
    assert is_negative_name(name)


@pytest.mark.parametrize(
    "name", ["view", "purchase", "add_to_cart", "like", "upvote", "unlock", "note", "badge", "quiz"]
)
def test_other_names_are_not_read_as_dislikes(name):
    assert not is_negative_name(name)


def test_the_meaning_of_each_column_is_reported_in_sentences():
    dataset = interactions(
        10,
        interaction_type=["view"] * 6 + ["return"] * 4,
        rating=[-5.0, -1.0, -2.0] + [5.0] * 7,
        weight=[1.0] * 8 + [0.0, 2.0],
    )
    text = " ".join(f"{one.level}: {one.text}" for one in interpretation(dataset, DataConfig()))
    assert "note: Interaction types that count as positive: 'view' (6), 'return' (4)." in text
    assert "warning: The interaction type 'return' (4) counts as positive (liked)" in text
    assert "warning: Ratings are from -5 to 5 and are not read" in text
    assert "30% of them are below 0" in text
    assert "note: Weights are from 0 to 2; 1 interaction with a weight of 0 is not learned from." in text
    chosen = DataConfig(positive_types={"view": 2, "purchse": 1}, min_rating=0)
    findings = interpretation(dataset, chosen)
    text = " ".join(f"{one.level}: {one.text}" for one in findings)
    assert "count as positive: 'view' (6, weight 2); that count as neither positive nor negative: 'return' (4)" in text
    assert "names 'purchse', which no interaction has" in text
    assert "those below data.min_rating (0) are explicit negatives: 30%" in text
    assert all(one.text.endswith(".") and one.advice.endswith((".", "?")) for one in findings)


def test_options_for_ratings_times_and_histories_that_the_data_lack_are_warned_about():
    dataset = small_dataset()
    dataset.interactions = dataset.interactions.drop_columns(["rating", "timestamp"])
    config = DataConfig(min_rating=3, half_life_days=30, history="spendings")
    text = " ".join(f"{one.level}: {one.text}" for one in interpretation(dataset, config))
    assert "warning: data.min_rating is set, but no interaction has a rating, so it has no effect." in text
    assert "warning: data.half_life_days is set, but no interaction has a timestamp, so it has no effect." in text
    assert "data.history names 'spendings', a temporal feature that no user has" in text


def test_doctor_init_and_train_report_how_types_ratings_and_weights_are_interpreted(tmp_path):
    rows = [
        {
            "user_id": f"u{n % 20}",
            "item_id": f"i{n % 7}",
            "interaction_type": ["view", "return"][n % 2],
            "rating": n % 11 - 5,
            "weight": -1 if n % 5 == 0 else 1,
        }
        for n in range(60)
    ]
    data = {
        "user_data": [{"user_id": f"u{n}"} for n in range(20)],
        "item_data": [{"item_id": f"i{n}"} for n in range(7)],
        "interactions": rows,
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    wanted = ["'return' (30) counts as positive", "Ratings are from -5 to 5 and are not read"]
    commands = (["doctor", path], ["init", path], ["train", "--data", path, "--output", tmp_path], ["validate", path])
    for command in commands:
        code, out, err = call(*command)
        said = " ".join((out + err).split())
        assert code == 2
        for sentence in ["a weight is 0 or more; found -1", *wanted]:
            assert sentence in said
    for row in rows:
        row["weight"] = 1
    path.write_text(json.dumps(data))
    short = ["--set", "training.epochs=1", "--set", "evaluation.report=false"]
    for command in (*commands[:2], [*commands[2], *short]):
        code, out, err = call(*command)
        said = " ".join((out + err).split())
        assert code == 0
        for sentence in [*wanted, "Weights are from 1 to 1"]:
            assert sentence in said


def noisy(data, seed=0):
    """The data with dislikes, and with one user's repetitions of interactions that they had."""
    rng = np.random.default_rng(seed)
    table = data.interactions.append_column("label", pa.nulls(len(data.interactions), pa.int8()))
    repeated = table.take(np.repeat(rng.integers(0, len(table), 5), 30))
    items = data.items["item_id"].take(rng.integers(0, len(data.items), 200))
    disliked = table.take(rng.integers(0, len(table), 200)).set_column(1, "item_id", items)
    disliked = disliked.set_column(table.column_names.index("label"), "label", pa.array([0] * 200, pa.int8()))
    return Dataset(data.users, data.items, pa.concat_tables([table, repeated, disliked]), roles=data.roles)


SOURCES = [
    {"type": "popularity"},
    {"type": "popularity", "half_life_days": 0.1},
    {"type": "popularity", "group": "categorical.job"},
    {"type": "item_to_item"},
    {"type": "item_to_item", "by": "next"},
    {"type": "classical", "model": {"type": "ease"}},
    {"type": "classical", "model": {"type": "recent_popularity"}},
]


def test_sources_and_item_facts_learn_from_positives_alone_and_from_each_pair_once():
    data = small_dataset()
    assert {one["type"] for one in SOURCES} == set(discover().names("source")) - {"model", "history"}
    options = {"split": {"protocol": "none"}, "model": {"type": "popularity"}}
    fitted = [
        Recommender.from_config(small_config(pipeline={"retrieve": {"sources": SOURCES}}, **options)).fit(
            one, progress=False
        )
        for one in (data, noisy(data))
    ]
    for clean, other in zip(*(one.pipeline.sources for one in fitted), strict=True):
        for name, values in clean.state().items():
            assert np.allclose(values, other.state()[name], atol=1e-5), (clean.type, clean.params, name)
    clean, other = (item_facts(one.model) for one in fitted)
    assert all(np.allclose(clean[name], other[name]) for name in clean)


def test_one_timestamp_in_the_future_leaves_recent_popularity_as_it_is():
    """Of the baseline with its default half-life, and of the source with one in days."""
    data = small_dataset()
    place = data.interactions.column_names.index("timestamp")
    times = data.interactions["timestamp"].cast(pa.int64()).to_numpy().copy()
    times[17] = 100 * YEAR
    late = small_dataset()
    stamps = pa.array(times).cast(pa.timestamp("us", "UTC"))
    late.interactions = data.interactions.set_column(place, "timestamp", stamps)
    sources = [SOURCES[1], SOURCES[-1]]
    options = {"split": {"protocol": "none"}, "model": {"type": "popularity"}}
    states = [
        [
            source.state()
            for source in Recommender.from_config(small_config(pipeline={"retrieve": {"sources": sources}}, **options))
            .fit(one, progress=False)
            .pipeline.sources
        ]
        for one in (data, late)
    ]
    for name, key in ((0, "counts"), (1, "weights")):
        before, after = (state[name][key].ravel() for state in states)
        assert (after > 0).sum() == (before > 0).sum()
        assert np.corrcoef(before, after)[0, 1] > 0.98
