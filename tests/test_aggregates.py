"""Aggregates of a user's past equal a plain loop, do not depend on later events, and include untrained items."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import START, rewritten_from_a_target_on, small_config, small_dataset

from anyrec.core.contracts import Context
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.windows import SequencePacker
from anyrec.data.dataset import Dataset
from anyrec.data.histories import COLUMN, history_features
from anyrec.recommender import Recommender

REGISTRY = discover()
NUMBER_OF_ITEMS = 30
PRICES = [None if n % 5 == 4 else float(n % 11) for n in range(NUMBER_OF_ITEMS)]
GENRES = [None if n % 7 == 6 else ["drama", f"g{n % 4}"][: 1 + n % 2] for n in range(NUMBER_OF_ITEMS)]
ITEMS = pa.table(
    {
        "item_id": [f"i{n:02d}" for n in range(NUMBER_OF_ITEMS)],
        "continuous.price": pa.array(PRICES, pa.float64()),
        "continuous.shape": pa.array([[float(n), float(n * n % 13)] for n in range(NUMBER_OF_ITEMS)]),
        "categorical.genre": pa.array(GENRES, pa.list_(pa.string())),
        "text.title": [f"Thing {n}" for n in range(NUMBER_OF_ITEMS)],
    }
)
ALONE = {"history": {"fields": {"events": None, "totals": {"type": "aggregates"}}}}
BOTH = {"history": {"window": 8, "fields": {"totals": {"type": "aggregates"}}}}


def encoder_of(items=ITEMS, **params):
    cls = REGISTRY.get("encoder", "aggregates")
    torch.manual_seed(0)
    encoder = cls(cls.Params(**params), 8)
    encoder.context = Context(items=items)
    return encoder


def events_of(*users):
    """Users as lists of (item, second or None) -> a history column."""
    rows = [
        [{"item": i, "time": None if s is None else 1_000_000 * s, "kind": None} for i, s in user] or None
        for user in users
    ]
    return pa.array(rows, COLUMN)


def fitted(users, **params):
    encoder = encoder_of(**params)
    encoder.fit(events_of(*users))
    encoder.build()
    return encoder.eval()


def by_hand(encoder, earlier, top, half_life):
    """One aggregate vector, newest last in `earlier`, by a plain loop over items."""
    weights = [1.0 if half_life is None else 0.5 ** (age / half_life) for age in range(len(earlier))][::-1]
    found, total = [np.log1p(len(earlier))], sum(weights)
    occurring = sorted(encoder.occurring)
    for values in ([None if p is None else [p] for p in PRICES], [[float(n), float(n * n % 13)] for n in range(30)]):
        known = np.array([values[n] for n in occurring if values[n] is not None], np.float64)
        mean, deviation = (known.mean(0), known.std(0)) if len(known) else (np.zeros(1), np.ones(1))
        deviation = np.where(deviation > 1e-9, deviation, 1.0)
        pairs = [
            (w, np.clip((np.array(values[n]) - mean) / deviation, -5, 5))
            for w, n in zip(weights, earlier, strict=True)
            if values[n]
        ]
        found.append(sum(w for w, _ in pairs) / total)
        having = sum(w for w, _ in pairs)
        found += list(sum(w * v for w, v in pairs) / having) if pairs else [0.0] * len(mean)
    counts = {}
    for n in occurring:
        for genre in GENRES[n] or ():
            counts[genre] = counts.get(genre, 0) + 1
    kept = sorted(sorted(counts, key=lambda genre: (-counts[genre], genre))[:top])
    hot = [[genre in (GENRES[n] or ()) for genre in kept] for n in earlier]
    others = [any(genre not in kept for genre in GENRES[n] or ()) for n in earlier]
    found.append(sum(w for w, other in zip(weights, others, strict=True) if other) / total)
    found += [sum(w for w, row in zip(weights, hot, strict=True) if row[k]) / total for k in range(len(kept))]
    return np.array(found)


histories = st.lists(
    st.lists(st.tuples(st.integers(0, NUMBER_OF_ITEMS - 1), st.integers(0, 6)), min_size=1, max_size=14).map(
        lambda user: sorted(user, key=lambda event: event[1])
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(histories, st.sampled_from([None, 0.7, 3.0]), st.integers(1, 6), st.sampled_from(["hidden", "ordered"]))
def test_the_aggregates_equal_those_of_a_plain_loop(users, half_life, top, same_time):
    encoder = fitted(users, half_life=half_life, top=top, same_time=same_time)
    encoder.occurring = {item for user in users for item, _ in user}
    values = encoder.encode_column(events_of(*users)).values
    before, known, place = values["before"].values, values["known"].values, 0

    def scaled(earlier):
        raw = by_hand(encoder, earlier, top, half_life)
        return np.clip((raw - encoder.mean) / encoder.deviation, -5, 5)

    for row, user in enumerate(users):
        for n, (_, when) in enumerate(user):
            earlier = [
                item for k, (item, then) in enumerate(user) if (k < n if same_time == "ordered" else then < when)
            ]
            assert known[place] == bool(earlier)
            assert np.allclose(before[place], scaled(earlier) if earlier else 0.0, atol=1e-5)
            place += 1
        assert np.allclose(values["now"][row], scaled([item for item, _ in user]), atol=1e-5)


def read_by_stream(encoder, column, length, seed=0):
    """(events, width) the values that one epoch reads before each event; nan if nothing came before."""
    values = encoder.encode_column(column).values
    count = len(values["items"].values)
    encoder.project = torch.nn.Identity()  # whose last bit does not hang on the batch
    found = torch.full((count, len(encoder.mean)), torch.nan)
    packer = SequencePacker(values, torch.arange(count), length, 3 * length, encoder.ordered)
    with torch.no_grad():
        for batch in packer.epoch(torch.Generator().manual_seed(seed)):
            vectors, known = encoder.before(batch, values, torch.zeros(NUMBER_OF_ITEMS, 8))
            found[batch.rows] = torch.where(known.unsqueeze(1), vectors, torch.nan)
    return found


@settings(deadline=None, max_examples=60)
@given(histories, st.data())
def test_changes_at_or_after_a_target_leave_its_aggregates_bit_identical(users, data):
    """Changes of any user, at any cut of the rows, with events at the same time hidden or in file order."""
    same_time = data.draw(st.sampled_from(["hidden", "ordered"]))
    encoder = fitted(users, half_life=data.draw(st.sampled_from([None, 2.0])), same_time=same_time)
    user, place, changed = rewritten_from_a_target_on(users, data, same_time)
    changed[user] += [(data.draw(st.integers(0, 29)), 99)] * data.draw(st.integers(0, 20))
    for other in range(user):  # those that stand before in memory
        changed[other] = [(data.draw(st.integers(0, 29)), when) for _, when in users[other]]
    target = sum(len(one) for one in users[:user]) + place
    one, other = (encoder.encode_column(events_of(*rows)).values for rows in (users, changed))
    for name in ("before", "known"):
        assert torch.equal(one[name].values[target], other[name].values[target])
    length, seed = data.draw(st.integers(2, 9)), data.draw(st.integers(0, 3))
    before, after = (read_by_stream(encoder, events_of(*rows), length, seed)[target] for rows in (users, changed))
    assert torch.equal(before, after) or (before.isnan().all() and after.isnan().all())


def test_long_histories_stay_exact():
    rng = np.random.default_rng(0)
    items = rng.integers(0, NUMBER_OF_ITEMS, 20_000).tolist()
    users = [[(item, n) for n, item in enumerate(items)]]
    encoder = fitted(users)
    encoder.occurring = set(items)
    now = encoder.encode_column(events_of(*users)).values["now"][0]
    raw = by_hand(encoder, items, 16, None)
    expected = np.clip((raw - encoder.mean) / encoder.deviation, -5, 5).astype(np.float32)
    assert np.allclose(now, expected, atol=1e-6)


def test_statistics_are_learned_from_the_items_in_training_histories_only():
    users = [[(n % 3, n) for n in range(6)]]
    other = ITEMS.set_column(
        1, "continuous.price", pa.array([p if n < 3 else 1e9 for n, p in enumerate(PRICES)], pa.float64())
    )
    one, two = encoder_of(), encoder_of(other)
    for encoder in (one, two):
        encoder.fit(events_of(*users))
    assert one.state() == two.state()
    assert one.state()["categories"]["categorical.genre"] == ["drama", "g1"]


def test_without_timestamps_the_aggregates_follow_the_order_of_the_file():
    users = [[(1, None), (2, None), (3, None)]]
    encoder = fitted(users)
    assert encoder.encode_column(events_of(*users)).values["known"].values.tolist() == [False, True, True]


def test_without_numbers_and_categories_of_items_the_length_is_the_only_aggregate():
    encoder = encoder_of(ITEMS.select(["item_id", "text.title"]))
    column = events_of([(1, 1), (2, 2)], [])
    encoder.fit(column)
    prepared = encoder.encode_column(column)
    assert prepared.values["now"].shape == (2, 1)
    assert prepared.present.tolist() == [True, False]
    assert any("the only aggregate of a history is its length" in warning for warning in encoder.context.warnings)


def shoppers(users=90, items=72, each=7, seed=0):
    """Each user buys in one of three price bands and one of three genres, in no particular order."""
    rng = np.random.default_rng(seed)
    band, genre = rng.integers(0, 3, users), rng.integers(0, 3, users)
    item_band, item_genre = np.arange(items) % 3, np.arange(items) // 3 % 3
    user_ids, item_ids = [f"u{n:03d}" for n in range(users)], [f"i{n:03d}" for n in range(items)]
    chosen = [
        rng.permutation(np.flatnonzero((item_band == b) & (item_genre == g)))[:each]
        for b, g in zip(band, genre, strict=True)
    ]
    times = [START + dt.timedelta(hours=n) for n in range(each)]
    dataset = Dataset(
        pa.table({"user_id": user_ids}),
        pa.table(
            {
                "item_id": item_ids,
                "continuous.price": 10.0 * item_band + rng.random(items),
                "categorical.genre": [f"genre {g}" for g in item_genre],
            }
        ),
        pa.table(
            {
                "user_id": np.repeat(user_ids, each),
                "item_id": [item_ids[n] for row in chosen for n in row],
                "timestamp": pa.array(times * users, pa.timestamp("us", "UTC")),
            }
        ),
    )
    return dataset, item_band, item_genre


def shop_config(features):
    return {
        "defaults": "fixed",
        "dim": 16,
        "features": features,
        "user": {"features": {"identity": None}},
        "item": {"features": {"identity": None}},
        "fusion": {"type": "simple"},
        "loss": {"type": "full_softmax"},
        "split": {"protocol": "leave_last_out"},
        "data": {"history": "had"},
        "training": {"epochs": 25, "batch_size": 64, "patience": None, "optimizer": {"learning_rate": 0.02}},
    }


@pytest.fixture(scope="module")
def shop():
    dataset, band, genre = shoppers()
    return Recommender.from_config(shop_config(ALONE)).fit(dataset, progress=False), band, genre


def asked(had):
    return pa.table({"user_id": ["stranger"], "temporal.had": pa.array([had], pa.list_(pa.string()))})


def test_a_new_user_with_only_a_history_gets_items_of_their_taste(shop):
    model, band, genre = shop
    right = []
    for n in range(9):
        mine = np.flatnonzero((band == n % 3) & (genre == n // 3))
        given = asked([f"i{item:03d}" for item in mine[:3]])
        found = model.recommend(given, 8, exclude_seen=False)["item_id"].to_pylist()
        right += [item in {f"i{one:03d}" for one in mine} for item in found]
    assert np.mean(right) > 0.8
    assert list(model.model.scorer.user.histories) == ["history.totals"]


def test_new_items_in_a_history_are_aggregated_by_their_features(shop):
    """Each of two models with other added items uses its own, whichever was made or called last."""
    model, band, genre = shop
    new = [
        pa.table({"item_id": [f"new{n}"], "continuous.price": [10.0 * n + 0.5], "categorical.genre": [f"genre {n}"]})
        for n in range(3)
    ]
    wider = [model.add_items(table) for table in new]
    for n in (0, 2, 1, 0):
        found = wider[n].recommend(asked([f"new{n}"]), 8)["item_id"].to_pylist()
        mine = {f"i{one:03d}" for one in np.flatnonzero((band == n) & (genre == n))} | {f"new{n}"}
        assert np.mean([item in mine for item in found]) > 0.6
    before = model.recommend(None, 5)
    assert model.recommend(None, 5).equals(before)


def test_a_loaded_model_gives_the_same_lists(shop, tmp_path):
    model, _, _ = shop
    again = Recommender.load(model.save(tmp_path / "model"))
    assert again.recommend(None, 6).equals(model.recommend(None, 6))
    assert again.recommend(asked(["i003", "i012"]), 6).equals(model.recommend(asked(["i003", "i012"]), 6))
    new = pa.table({"item_id": ["new"], "continuous.price": [20.5], "categorical.genre": ["genre 1"]})
    one, other = (each.add_items(new).recommend(asked(["new", "i003"]), 6) for each in (again, model))
    assert one.equals(other)
    later = again.with_data(shoppers()[0])
    assert later.evaluate("test") == pytest.approx(model.metrics["test"])


@pytest.mark.parametrize("block", ["transformer", "bidirectional", "mean"])
def test_aggregates_can_be_combined_with_a_sequence_model(block, tmp_path):
    features = {"history": {**BOTH["history"], "block": block}}
    model = Recommender.from_config(small_config(features=features)).fit(small_dataset(), progress=False)
    assert list(model.model.scorer.user.histories) == ["history.events", "history.totals"]
    again = Recommender.load(model.save(tmp_path / "model"))
    assert again.recommend(None, 5).equals(model.recommend(None, 5))


def test_aggregates_can_be_the_only_feature_of_histories():
    features = {"history": {"type": "aggregates", "top": 2}}
    model = Recommender.from_config(small_config(features=features)).fit(small_dataset(), progress=False)
    assert model.model.scorer.user.histories["history.events"].type == "aggregates"


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (None, []),
        ({}, ["history.events"]),
        ({"fields": {"totals": {"type": "aggregates"}}}, ["history.events", "history.totals"]),
        ({"fields": {"events": None, "totals": {}}}, ["history.totals"]),
        ({"fields": {"totals": None}}, ["history.events"]),
        ({"fields": {"events": None}}, []),
    ],
)
def test_the_config_names_the_features_that_read_histories(group, names):
    assert history_features(Recommender.from_config({"features": {"history": group}}).config) == names


@pytest.mark.parametrize(
    ("other", "option"),
    [
        ({"type": "aggregates", "same_time": "ordered"}, "same_time"),
        ({"type": "history", "block": "bidirectional"}, "mask_share"),
        ({"type": "history", "window": 5}, "window"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_features_of_histories_with_different_windows_are_refused(other, option):
    config = small_config(features={"history": {"fields": {"other": other}}})
    with pytest.raises(ConfigError, match=f"differ in {option}: history.events .*history.other"):
        Recommender.from_config(config).fit(small_dataset(), progress=False)
