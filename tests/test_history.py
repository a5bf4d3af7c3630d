"""Histories: order is learned, time does not leak, and whoever comes with a history, known or not, is understood by it."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import START, call, rewritten_from_a_target_on, small_config, small_dataset
from torch.nn import functional

from anyrec.core.config import DataConfig
from anyrec.core.discovery import discover
from anyrec.core.ragged import Ragged
from anyrec.core.windows import SequencePacker, last_windows
from anyrec.data.dataset import Dataset
from anyrec.data.partial import read_partial
from anyrec.recommender import Recommender
from anyrec.serving.result import infer

REGISTRY = discover()
BLOCKS = ["transformer", "bidirectional", "gru", "mean"]
DIM = 8


def encoder_of(**params):
    cls = REGISTRY.get("encoder", "history")
    torch.manual_seed(0)
    encoder = cls(cls.Params(**params), DIM)
    encoder.item_dim = DIM
    return encoder


def events_of(*users):
    """Users as lists of (item, second) -> a history column."""
    rows = [
        [{"item": item, "time": 1_000_000 * second, "kind": None} for item, second in user] or None for user in users
    ]
    from anyrec.data.histories import COLUMN

    return pa.array(rows, COLUMN)


def positions(encoder, column, length, ordered, seed=0):
    """(events, DIM) the user's vector before each event, by one epoch; nan where nothing is known of the user."""
    values = encoder.encode_column(column).values
    count = len(values["items"].values)
    packer = SequencePacker(values, torch.arange(count), length, 3 * length, ordered)
    items = torch.randn(30, DIM, generator=torch.Generator().manual_seed(1))
    found = torch.full((count, DIM), torch.nan)
    with torch.no_grad():
        for batch in packer.epoch(torch.Generator().manual_seed(seed)):
            states = encoder.states(batch.windows, items).flatten(0, 1)[batch.read.clamp(min=0)]
            found[batch.rows] = torch.where(batch.read.unsqueeze(1) >= 0, states, torch.nan)
    return found


histories = st.lists(
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 6)), min_size=1, max_size=12).map(
        lambda user: sorted(user, key=lambda event: event[1])
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(histories, st.data())
def test_what_happens_at_or_after_a_target_changes_nothing_of_its_user_vector(users, data):
    """Bit for bit, at any place of a window, with ties in time hidden or in the order of the file."""
    block = data.draw(st.sampled_from(["transformer", "gru", "mean"]))
    same_time = data.draw(st.sampled_from(["hidden", "ordered"]))
    encoder = encoder_of(block=block, window=9, use_gap=True, same_time=same_time)
    encoder.fit(events_of(*users))
    encoder.build()
    encoder.eval()
    user, place, changed = rewritten_from_a_target_on(users, data, same_time)
    length = data.draw(st.integers(2, 9))
    before, after = (positions(encoder, events_of(*one), length, same_time == "ordered") for one in (users, changed))
    target = sum(len(one) for one in users[:user]) + place
    assert torch.equal(before[target], after[target]) or (before[target].isnan().all() and after[target].isnan().all())


@pytest.mark.parametrize("block", ["transformer", "gru", "mean"])
def test_the_stream_sees_at_each_event_what_prediction_would_see(block):
    users = [[(n * k % 30, n) for n in range(2 + k)] for k in (3, 1, 6)]
    encoder = encoder_of(block=block, window=40, use_gap=True)
    encoder.fit(events_of(*users))
    encoder.build()
    encoder.eval()
    items = torch.randn(30, DIM, generator=torch.Generator().manual_seed(1))
    every = [user[:place] for user in users for place in range(len(user))]
    with torch.no_grad():
        expected = encoder(encoder.encode_column(events_of(*every)).values, items)
    for seed in range(30):  # until no user is cut by the end of the row
        found = positions(encoder, events_of(*users), 40, True, seed)
        if found.isnan().any(1).sum() == len(users):
            break
    known = torch.tensor([len(user) > 0 for user in every])
    whole = torch.isclose(found[known], expected[known], atol=1e-5).all(1)
    assert whole.float().mean() > 0.6  # the one user whom the start of the first row cuts sees less
    assert whole[-7:].all() or whole[:4].all()


@settings(deadline=None, max_examples=50)
@given(histories, st.integers(2, 9), st.integers(0, 5))
def test_an_epoch_predicts_every_event_without_padding(users, length, seed):
    encoder = encoder_of()
    encoder.fit(events_of(*users))
    values = encoder.encode_column(events_of(*users)).values
    count = len(values["items"].values)
    packer = SequencePacker(values, torch.arange(count), length, 2 * length, True)
    seen = torch.cat([batch.rows for batch in packer.epoch(torch.Generator().manual_seed(seed))])
    assert set(seen.tolist()) == set(range(count))
    assert len(seen) == packer.rows * packer.length < count + packer.length
    owner = values["items"].row_of_value()
    for batch in packer.epoch(torch.Generator().manual_seed(seed)):
        windows, events = batch.windows, batch.rows.view(batch.windows.items.shape)
        before = torch.where(packer.starts[events], -1, values["items"].values[(events - 1).clamp(min=0)])
        assert torch.equal(windows.items, before)
        seen_by = windows.visible(causal=True).nonzero()
        row, looking, looked = seen_by.T
        assert torch.equal(owner[events[row, looking]], owner[events[row, looked]])
        assert (events[row, looked] <= events[row, looking]).all()


def test_a_hidden_interaction_is_not_among_its_own_tokens():
    encoder = encoder_of(block="bidirectional", window=6)
    column = events_of([(n, n) for n in range(25)], [(n, n) for n in range(7)])
    encoder.fit(column)
    values = encoder.encode_column(column).values
    packer = SequencePacker(values, torch.arange(32), 6, 12, True, mask_share=0.4)
    for batch in packer.epoch(torch.Generator().manual_seed(0)):
        assert (batch.windows.items.flatten()[batch.read] == -1).all()
        assert (batch.windows.items == -1).sum() == len(batch.rows)


def test_the_last_window_holds_the_newest_and_begins_with_nothing_where_all_fits():
    column = events_of([(n, n) for n in range(5)], [], [(7, 0)])
    encoder = encoder_of()
    encoder.fit(column)
    values = encoder.encode_column(column).values
    windows, read = last_windows(values, 3, masked=False)
    assert windows.items.tolist() == [[2, 3, 4], [-1, -1, -1], [-1, 7, -1]]
    assert read.tolist() == [2, 0, 1]
    windows, read = last_windows(values, 3, masked=True)
    assert windows.items.tolist() == [[3, 4, -1], [-1, -1, -1], [7, -1, -1]]
    assert read.tolist() == [2, 0, 1]


def test_the_softmax_by_blocks_equals_the_one_that_keeps_its_scores():
    torch.manual_seed(0)
    loss = REGISTRY.get("loss", "full_softmax")(REGISTRY.get("loss", "full_softmax").Params(temperature=0.7))
    users = torch.randn(2500, 6, requires_grad=True)
    items = torch.randn(31, 6, requires_grad=True)
    target, barred, weight = torch.randint(31, (2500,)), torch.rand(2500, 31) < 0.3, torch.rand(2500)
    bar = barred * torch.tensor(-1e30)
    whole = loss.over_catalogue(users, items, target, lambda low, high, scores: scores.copy_(bar[low:high]), weight)
    got = torch.autograd.grad(whole, (users, items))
    valid = (~barred).scatter(1, target.unsqueeze(1), False)
    scores = (users @ items.T) / 0.7
    kept = loss(scores.gather(1, target.unsqueeze(1)).squeeze(1), scores, valid, weight)
    expected = torch.autograd.grad(kept, (users, items))
    assert torch.isclose(whole, kept, atol=1e-5)
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    plain = functional.cross_entropy(users @ items.T, target)
    loss = REGISTRY.get("loss", "full_softmax")()
    none = loss.over_catalogue(users, items, target, lambda low, high, scores: scores.zero_(), None)
    assert torch.isclose(plain, none, atol=1e-5)


def walkers(users=120, items=24, each=14, seed=0):
    """Whoever has an item takes the next one of a ring: only order tells what comes."""
    rng = np.random.default_rng(seed)
    steps = (rng.integers(0, items, (users, 1)) + np.arange(each)) % items
    user_ids, item_ids = [f"u{n:03d}" for n in range(users)], [f"i{n:02d}" for n in range(items)]
    times = [START + dt.timedelta(hours=int(n)) for n in range(each)]
    return Dataset(
        pa.table({"user_id": user_ids, "categorical.kind": [["a", "b"][n % 2] for n in range(users)]}),
        pa.table({"item_id": item_ids}),
        pa.table(
            {
                "user_id": np.repeat(user_ids, each),
                "item_id": [item_ids[n] for n in steps.flatten()],
                "timestamp": pa.array(times * users, pa.timestamp("us", "UTC")),
            }
        ),
    )


def order_config(**changes):
    return {
        "defaults": "fixed",
        "dim": 16,
        "features": {"history": {"window": 8, "dropout": 0.0}},
        "user": {"features": {"identity": None}},
        "loss": {"type": "full_softmax"},
        "split": {"protocol": "leave_last_out"},
        "training": {"epochs": 20, "batch_size": 160, "optimizer": {"learning_rate": 0.01}},
        **changes,
    }


@pytest.fixture(scope="module")
def ordered_model():
    return Recommender.from_config(order_config()).fit(walkers(), progress=False)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_learns_what_comes_next(block):
    """The mean of what went before cannot tell the newest, but a short half-life comes near."""
    history = {"window": 8, "dropout": 0.0, "block": block, "half_life": 0.5}
    config = order_config(features={"history": history})
    config["training"]["epochs"] = 60 if block == "bidirectional" else 20
    fitted = Recommender.from_config(config).fit(walkers(), progress=False)
    assert fitted.metrics["test"]["ndcg@5"] > 0.9


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"type": "softmax"}, "negatives": {"type": "in_batch", "block": 64}},
        {"loss": {"type": "softmax"}, "negatives": {"type": "shared", "size": 16}},
        {"loss": {"type": "gbce"}, "negatives": {"type": "uniform"}, "negative_ratio": 8},
        {"loss": {"type": "bpr"}, "negatives": {"type": "uniform"}},
        {"interaction": {"type": "cosine"}},
        {"interaction": {"type": "mlp"}},
        {"fusion": {"type": "attention"}, "interaction": {"type": "attention"}},
    ],
    ids=lambda changes: "-".join(part["type"] for part in changes.values() if isinstance(part, dict)),
)
def test_every_objective_and_interaction_takes_histories(changes):
    fitted = Recommender.from_config(order_config(**changes)).fit(walkers(), progress=False)
    assert fitted.metrics["test"]["ndcg@5"] > 0.5


def next_of(item, items=24):
    return f"i{(int(item[1:]) + 1) % items:02d}"


def test_users_are_read_by_all_they_did_after_training(ordered_model):
    data = walkers()
    last = data.interactions["item_id"].to_pylist()[13::14]
    found = ordered_model.recommend(None, 1)["item_id"].to_pylist()
    assert np.mean([one == next_of(item) for one, item in zip(found, last, strict=True)]) > 0.9


def test_an_unseen_user_brings_a_history_or_features_or_nothing(tmp_path):
    config = order_config(data={"history": "prev_interactions"})
    fitted = Recommender.from_config(config).fit(walkers(), progress=False)
    fitted.save(tmp_path / "model")
    people = [
        {"user_id": "historian", "temporal": {"prev_interactions": ["i03", "i04", "i05"]}},
        {"user_id": "plain", "categorical": {"kind": "a"}},
        {"user_id": "nobody"},
        {"user_id": "u003", "temporal": {"prev_interactions": ["i10", "nothing", "i11"]}},
    ]
    (tmp_path / "ask.json").write_text(json.dumps({"user_data": people}))
    code, out, error = call(
        "recommend", "--model-path", tmp_path / "model", "--data", tmp_path / "ask.json", "--top-k", 3
    )
    assert code == 0, error
    answer = json.loads(out)
    lists = [[row["item_id"] for row in user["recommendations"]] for user in answer["users"]]
    assert all(len(one) == 3 for one in lists)
    assert lists[0][0] == "i06"
    assert any("of the given histories" in note for note in answer["notes"])
    top = infer(
        fitted, read_partial({"user_data": people}, DataConfig(history="prev_interactions"), {}), 1, exclude_seen=False
    )
    assert top["users"][3]["recommendations"][0]["item_id"] == "i12"


def test_what_a_record_brings_along_comes_before_its_interactions():
    data = walkers()
    lists = [["i00"] if n % 2 else None for n in range(120)]
    users = data.users.append_column("temporal.before", pa.array(lists, pa.list_(pa.string())))
    with_lists = Dataset(users, data.items, data.interactions, roles={"user.before": "items"})
    fitted = Recommender.from_config(order_config(data={"history": "before"})).fit(with_lists, progress=False)
    assert [len(one) for one in fitted.model.history.slice(0, 2).to_pylist()] == [14, 15]
    assert fitted.model.history[1].as_py()[0] == {"item": 0, "time": None, "kind": None}
    assert "temporal.before" not in fitted.model.scorer.user.features
    assert fitted.metrics["test"]["ndcg@5"] > 0.9


def test_a_loaded_model_remembers_what_users_did(ordered_model, tmp_path):
    again = Recommender.load(ordered_model.save(tmp_path / "model"))
    assert again.recommend(None, 5).equals(ordered_model.recommend(None, 5))
    record = pa.table({"user_id": ["u001"], "categorical.kind": ["a"]})
    assert again.recommend(record, 5).equals(ordered_model.recommend(record, 5))
    later = again.with_data(walkers())
    assert later.evaluate("test") == pytest.approx(ordered_model.metrics["test"])


def test_a_new_item_in_a_history_speaks_by_its_content():
    data = small_dataset()
    fitted = Recommender.from_config(
        small_config(features={"history": {}}, data={"history": "had"}, id_dropout=0.3)
    ).fit(data, progress=False)
    item = {"item_id": "new", "categorical": {"tags": ["nurse", "all"]}, "text": {"title": "Thing for a nurse"}}
    person = {"user_id": "x", "temporal": {"had": ["new", "new"]}}
    empty = {"user_id": "y"}
    request = read_partial(
        {"user_data": [person, empty], "item_data": [item]}, fitted.config.data, fitted.dataset.roles
    )
    answer = infer(fitted, request, 5)
    assert answer["users"][0]["embedding"] != answer["users"][1]["embedding"]
    assert not any("of the given histories" in note for note in answer["notes"])


def test_without_times_the_order_of_the_file_counts_and_is_said():
    data = walkers()
    timeless = Dataset(data.users, data.items, data.interactions.drop_columns(["timestamp"]))
    fitted = Recommender.from_config(order_config(split={"protocol": "random", "test": 0.05})).fit(
        timeless, progress=False
    )
    assert any("the order of the file" in note for note in fitted.notes)
    assert fitted.metrics["test"]["ndcg@5"] > 0.5


def test_the_evaluation_hides_what_came_at_or_after_the_held_out_interactions():
    """Under a random split later interactions are in training, and still in nobody's history."""
    data = walkers()
    fitted = Recommender.from_config(order_config(split={"protocol": "random"})).fit(data, progress=False)
    column = fitted.model.before("test").columns["user"]["history.events"].values["items"]
    first = np.full(120, 99)
    place = np.tile(np.arange(14), 120)
    np.minimum.at(first, fitted.dataset.user_rows[fitted.model.split.test], place[fitted.model.split.test])
    assert (column.lengths.numpy() <= first).all()


def test_views_are_read_and_purchases_learned():
    """Interactions that are no positives still stand in the histories."""
    data = small_dataset()
    config = small_config(features={"history": {"use_kind": True}}, data={"positive_types": {"buy": 1.0}})
    fitted = Recommender.from_config(config).fit(data, progress=False)
    assert fitted.model.history[0].as_py()[0]["kind"] == "view"
    assert len(fitted.model.history[0]) == 8


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_same_seed_gives_the_same_model(block, threads):
    config = small_config(features={"history": {"block": block}})
    one, other = (trained_on(threads, config) for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("block", BLOCKS)
def test_two_threads_learn_what_one_does(block):
    """But for the order in which numbers are added up, and for dropout, which each draws for itself."""
    config = small_config(features={"history": {"block": block, "dropout": 0.0}}, loss={"type": "full_softmax"})
    losses = [[], []]
    for threads, of_epochs in enumerate(losses, start=1):
        trained_on(threads, config, report=lambda entry, losses=of_epochs: losses.append(entry["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][-1] < losses[0][0]


def trained_on(threads, config, report=None):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return (
            Recommender.from_config(config)
            .fit(small_dataset(), progress=False, report=report)
            .model.scorer.state_dict()
        )
    finally:
        torch.set_num_threads(before)


def test_resuming_is_as_if_never_stopped(tmp_path):
    config = small_config(features={"history": {}})
    config["training"] = {**config["training"], "epochs": 4}
    whole = Recommender.from_config(config).fit(small_dataset(), progress=False, run_dir=tmp_path / "whole")
    half = {**config, "training": {**config["training"], "epochs": 2}}
    Recommender.from_config(half).fit(small_dataset(), progress=False, run_dir=tmp_path / "half")
    resumed = Recommender.from_config(config).fit(
        small_dataset(), progress=False, run_dir=tmp_path / "half", resume=True
    )
    for name, value in whole.model.scorer.state_dict().items():
        assert torch.equal(value, resumed.model.scorer.state_dict()[name]), name


def test_dropout_silences_its_share_and_keeps_the_mean():
    from anyrec.encoders.sequence_blocks import Dropout

    torch.manual_seed(0)
    layer = Dropout(0.25)
    values = layer(torch.ones(300, 401))
    assert not torch.equal(values, layer(torch.ones(300, 401)))
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert values.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(Dropout(0.25).eval()(values), values)


def test_a_ragged_column_of_no_events_is_absent():
    encoder = encoder_of()
    encoder.fit(events_of([(1, 1)]))
    prepared = encoder.encode_column(events_of([], []))
    assert not prepared.present.any()
    assert isinstance(prepared.values["items"], Ragged)
