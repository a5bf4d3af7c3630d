"""Histories: order is learned, time does not leak, and new users are encoded by the history they bring."""

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
from anyrec.data.histories import COLUMN
from anyrec.data.partial import read_partial
from anyrec.encoders.sequence_blocks import Dropout
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
def test_changes_at_or_after_a_target_leave_its_user_vector_bit_identical(users, data):
    """At any position in a row, with events at the same time hidden or in the order of the file."""
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


@pytest.mark.parametrize("same_time", ["hidden", "ordered"])
@pytest.mark.parametrize("block", ["transformer", "gru", "mean"])
def test_training_computes_the_state_that_inference_computes_before_every_event(block, same_time):
    """A row that begins in the middle of a history sees what inference sees with a window of as many tokens."""
    users = [[(7 * n * k % 30, n // 2) for n in range(2 + k)] for k in (3, 1, 6)]  # two events at each time
    encoder = encoder_of(block=block, window=40, use_gap=True, same_time=same_time)
    encoder.fit(events_of(*users))
    encoder.build()
    encoder.eval()
    items = torch.randn(30, DIM, generator=torch.Generator().manual_seed(1))
    values, length = encoder.encode_column(events_of(*users)).values, 6
    owners = [(user, place) for user in users for place in range(len(user))]
    packer = SequencePacker(values, torch.arange(len(owners)), length, length, same_time == "ordered")
    batches = [batch for seed in range(5) for batch in packer.epoch(torch.Generator().manual_seed(seed))]
    compared = cut = 0
    for batch in batches:
        states = encoder.states(batch.windows, items).flatten(0, 1)
        for column, (event, read) in enumerate(zip(batch.events.tolist(), batch.read.tolist(), strict=True)):
            user, place = owners[event]
            hidden = 0 if same_time == "ordered" else sum(when == user[place][1] for _, when in user[:place])
            tokens = column - hidden - int(batch.windows.first[0, column]) + 1
            if tokens < 1 or place == hidden:  # nothing that is visible came before, in this row or at all
                assert read == -1
                continue
            before = encoder.encode_column(events_of(user[: place - hidden])).values
            expected = encoder.states(*last_windows(before, tokens, masked=False)[:1], items)[0, -1]
            assert torch.allclose(states[read], expected, atol=1e-5)
            compared, cut = compared + 1, cut + (tokens <= place - hidden)
    assert compared - cut >= 10 and cut >= 10  # histories that are whole in the row, and histories that the row cuts


@settings(deadline=None, max_examples=50)
@given(histories, st.integers(2, 9), st.integers(0, 5))
def test_an_epoch_contains_every_event_and_no_padding(users, length, seed):
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


def test_hidden_interactions_are_targets_and_no_tokens():
    encoder = encoder_of(block="bidirectional", window=6)
    column = events_of([(n, n) for n in range(25)], [(n, n) for n in range(7)])
    encoder.fit(column)
    values = encoder.encode_column(column).values
    packer = SequencePacker(values, torch.arange(32), 6, 12, True, mask_share=0.4)
    for batch in packer.epoch(torch.Generator().manual_seed(0)):
        assert (batch.windows.items.flatten()[batch.read] == -1).all()
        assert (batch.windows.items == -1).sum() == len(batch.rows)


def test_the_last_window_holds_the_latest_events_after_a_start_token_if_it_fits():
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


def test_the_blockwise_softmax_equals_the_one_that_stores_all_scores():
    torch.manual_seed(0)
    loss = REGISTRY.get("loss", "full_softmax")(REGISTRY.get("loss", "full_softmax").Params(temperature=0.7))
    users = torch.randn(2500, 6, requires_grad=True)
    items = torch.randn(31, 6, requires_grad=True)
    target, masked, weight = torch.randint(31, (2500,)), torch.rand(2500, 31) < 0.3, torch.rand(2500)
    mask = masked * torch.tensor(-1e30)
    whole = loss.over_catalogue(users, items, target, lambda low, high, scores: scores.copy_(mask[low:high]), weight)
    got = torch.autograd.grad(whole, (users, items))
    valid = (~masked).scatter(1, target.unsqueeze(1), False)
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
    """After an item comes the next one of a ring, so only the latest item predicts the next."""
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
def test_each_block_learns_which_item_comes_next(block):
    """The mean has no order, but with a half-life of half an interaction the latest item dominates it."""
    history = {"window": 8, "dropout": 0.0, "block": block, **({"half_life": 0.5} if block == "mean" else {})}
    config = order_config(features={"history": history})
    config["training"]["epochs"] = 60 if block == "bidirectional" else 20
    fitted = Recommender.from_config(config).fit(walkers(), progress=False)
    if block == "bidirectional":
        assert fitted.metrics["test"]["hit_rate@5"] == 1.0 and fitted.metrics["test"]["ndcg@5"] > 0.95
    else:
        assert fitted.metrics["test"]["ndcg@5"] == 1.0


@pytest.mark.slow
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
def test_histories_are_learned_with_every_objective_and_interaction(changes):
    fitted = Recommender.from_config(order_config(**changes)).fit(walkers(), progress=False)
    assert fitted.metrics["test"]["ndcg@5"] == 1.0


def next_of(item, items=24):
    return f"i{(int(item[1:]) + 1) % items:02d}"


def test_after_training_a_users_whole_history_is_read(ordered_model):
    data = walkers()
    last = data.interactions["item_id"].to_pylist()[13::14]
    found = ordered_model.recommend(None, 1)["item_id"].to_pylist()
    assert found == [next_of(item) for item in last]


def test_a_new_user_can_bring_a_history_or_features_or_nothing(tmp_path):
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


def test_the_history_of_a_record_precedes_its_interactions():
    data = walkers()
    lists = [["i00"] if n % 2 else None for n in range(120)]
    users = data.users.append_column("temporal.before", pa.array(lists, pa.list_(pa.string())))
    with_lists = Dataset(users, data.items, data.interactions, roles={"user.before": "items"})
    fitted = Recommender.from_config(order_config(data={"history": "before"})).fit(with_lists, progress=False)
    assert [len(one) for one in fitted.model.history.slice(0, 2).to_pylist()] == [14, 15]
    assert fitted.model.history[1].as_py()[0] == {"item": 0, "time": None, "kind": None}
    assert "temporal.before" not in fitted.model.scorer.user.features
    assert fitted.metrics["test"]["ndcg@5"] == 1.0


def test_a_loaded_model_has_the_histories_of_its_users(ordered_model, tmp_path):
    again = Recommender.load(ordered_model.save(tmp_path / "model"))
    assert again.recommend(None, 5).equals(ordered_model.recommend(None, 5))
    record = pa.table({"user_id": ["u001"], "categorical.kind": ["a"]})
    assert again.recommend(record, 5).equals(ordered_model.recommend(record, 5))
    later = again.with_data(walkers())
    assert later.evaluate("test") == pytest.approx(ordered_model.metrics["test"])


def test_a_new_item_in_a_history_is_read_by_its_content():
    data = small_dataset()
    fitted = Recommender.from_config(
        small_config(features={"history": {}}, data={"history": "had"}, id_dropout=0.3)
    ).fit(data, progress=False)
    new = [
        {"item_id": f"new {job}", "categorical": {"tags": [job, "all"]}, "text": {"title": f"Thing for a {job}"}}
        for job in ("nurse", "pilot")
    ]
    twin = {**new[0], "item_id": "another for a nurse"}
    people = [{"user_id": one["item_id"], "temporal": {"had": [one["item_id"]] * 2}} for one in [*new, twin]]
    document = {"user_data": [*people, {"user_id": "nobody"}], "item_data": [*new, twin]}
    answer = infer(fitted, read_partial(document, fitted.config.data, fitted.dataset.roles), 5, embeddings=True)
    nurse, pilot, other_nurse, nobody = (user["embedding"] for user in answer["users"])
    assert nurse == pytest.approx(other_nurse, abs=1e-6)
    assert nurse != pytest.approx(pilot, abs=1e-3) and nurse != pytest.approx(nobody, abs=1e-3)
    assert not any("of the given histories" in note for note in answer["notes"])


def test_without_timestamps_histories_follow_the_order_of_the_file_and_a_note_says_so():
    data = walkers()
    timeless = Dataset(data.users, data.items, data.interactions.drop_columns(["timestamp"]))
    fitted = Recommender.from_config(order_config(split={"protocol": "random", "test": 0.05})).fit(
        timeless, progress=False
    )
    assert any("the order of the file" in note for note in fitted.notes)
    assert fitted.metrics["test"]["ndcg@5"] > 0.85  # a random list: 0.12


def test_in_evaluation_a_history_ends_before_the_users_first_held_out_interaction():
    """Also with a random split, in which later interactions are in the training part."""
    data = walkers()
    fitted = Recommender.from_config(order_config(split={"protocol": "random"})).fit(data, progress=False)
    column = fitted.model.before("test").columns["user"]["history.events"].values["items"]
    first, place = np.full(120, 14), np.tile(np.arange(14), 120)
    np.minimum.at(first, fitted.dataset.user_rows[fitted.model.split.test], place[fitted.model.split.test])
    assert column.lengths.tolist() == first.tolist()


def test_interactions_that_are_no_positives_are_part_of_the_histories():
    data = small_dataset()
    config = small_config(features={"history": {"use_kind": True}}, data={"positive_types": {"buy": 1.0}})
    fitted = Recommender.from_config(config).fit(data, progress=False)
    assert [event["kind"] for event in fitted.model.history[0].as_py()] == ["view", "buy"] * 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_same_seed_gives_the_same_model(block, threads):
    config = small_config(features={"history": {"block": block}})
    one, other = (trained_on(threads, config) for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("block", BLOCKS)
def test_two_threads_learn_the_same_as_one(block):
    """Apart from the order of additions, and from dropout, which each thread draws for its own rows."""
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


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
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


def test_dropout_sets_a_share_of_the_values_to_zero_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = Dropout(0.25)
    values = layer(torch.ones(300, 401))
    assert not torch.equal(values, layer(torch.ones(300, 401)))
    assert values.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)  # four standard deviations
    assert torch.equal(Dropout(0.25).eval()(values), values)


def test_users_without_events_are_absent():
    encoder = encoder_of()
    encoder.fit(events_of([(1, 1)]))
    prepared = encoder.encode_column(events_of([], []))
    assert not prepared.present.any()
    assert isinstance(prepared.values["items"], Ragged)
