"""Sets of items as users' histories: targets are never visible, order means nothing, and all targets share a row."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_dataset

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.ragged import Ragged
from anyrec.core.windows import SetPacker
from anyrec.data.dataset import Dataset
from anyrec.data.histories import COLUMN
from anyrec.data.partial import read_partial
from anyrec.recommender import Recommender
from anyrec.serving.result import infer

REGISTRY = discover()
DIM, ITEMS = 8, 12
DATA = small_dataset()
TIMELESS = Dataset(DATA.users, DATA.items, DATA.interactions.drop_columns(["timestamp"]), roles=DATA.roles)
BATCH = 20


def set_encoder(**params):
    cls = REGISTRY.get("encoder", "set")
    torch.manual_seed(0)
    encoder = cls(cls.Params(**params), DIM)
    encoder.item_dim = DIM
    encoder.build()
    torch.nn.init.normal_(encoder.shift)
    return encoder


def column_of(*users):
    """Users as lists of items -> a history column."""
    return pa.array([[{"item": item, "time": None, "kind": None} for item in user] or None for user in users], COLUMN)


def packed(users, hidden_share=0.5, learned=None):
    values = set_encoder().encode_column(column_of(*users)).values
    count = len(values["items"].values)
    samples = torch.arange(count) if learned is None else torch.where(learned, torch.arange(count), -1)
    return values, SetPacker(values, samples, BATCH, hidden_share)


some_users = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=9).filter(any)


@settings(deadline=None, max_examples=60)
@given(some_users, st.integers(0, 3), st.sampled_from([0.2, 0.5, 0.9]))
def test_a_target_is_predicted_from_its_users_visible_items(users, seed, hidden_share):
    """Every event is either a visible token or a target; each target's vector is the mean of the visible ones."""
    values, packer = packed(users, hidden_share)
    encoder, table = set_encoder(), torch.randn(ITEMS, DIM)
    owners, items = values["items"].row_of_value(), values["items"].values
    seen = batches = tokens = 0
    for batch in packer.epoch(torch.Generator().manual_seed(seed)):
        batches += 1
        tokens += batch.windows.items.numel()
        assert torch.equal(batch.rows, batch.events)
        seen += len(batch.rows)
        vectors, known = encoder.before(batch, values, table)
        for place, event in enumerate(batch.events.tolist()):
            mine = (owners == owners[event]).nonzero()[:, 0]
            hidden = set(batch.events.tolist()) & set(mine.tolist())
            visible = [int(items[one]) for one in mine.tolist() if one not in hidden]
            assert int(items[event]) not in visible  # a repeated item is on one side with all its events
            assert bool(known[place]) == bool(visible)
            if visible:
                assert torch.allclose(vectors[place], table[visible].mean(0) + encoder.shift, atol=1e-5)
        one = batch.one_of_each()
        if len(batch.rows):
            again, there = encoder.before(one, values, table)
            assert torch.equal(again[batch.owners], vectors) and torch.equal(there[batch.owners], known)
            assert torch.equal(owners[one.events][batch.owners], owners[batch.events])
    assert batches == packer.count and seen + tokens == len(items)


def test_every_epoch_hides_others_and_only_positives_are_targets():
    users = [list(range(ITEMS))] * 40
    learned = torch.arange(40 * ITEMS) % 3 > 0
    _, packer = packed(users, 0.5, learned)
    epochs = [torch.cat([b.rows for b in packer.epoch(torch.Generator().manual_seed(seed))]) for seed in range(30)]
    assert all(bool(learned[rows].all()) for rows in epochs)
    assert set(torch.cat(epochs).tolist()) == set(learned.nonzero()[:, 0].tolist())
    assert all(0.4 < len(rows) / int(learned.sum()) < 0.6 for rows in epochs)
    assert packer.users_a_step == round(BATCH / ITEMS)


def test_the_order_of_a_set_means_nothing():
    encoder, table = set_encoder(), torch.randn(ITEMS, DIM)
    one, other = (encoder.encode_column(column_of(items, [])).values for items in ([1, 5, 3, 3], [3, 1, 3, 5]))
    assert torch.allclose(encoder(one, table), encoder(other, table))
    assert torch.equal(encoder(one, table)[1], encoder.shift)


def test_targets_that_share_a_row_have_the_loss_and_gradients_of_a_multinomial_likelihood():
    """Reference: a masked log softmax for each user, with all scores stored."""
    torch.manual_seed(0)
    cls = REGISTRY.get("loss", "full_softmax")
    loss = cls(cls.Params(temperature=0.7))
    users, items = torch.randn(300, 6, requires_grad=True), torch.randn(31, 6, requires_grad=True)
    owners = torch.sort(torch.randint(300, (900,))).values
    target, weight = torch.randint(31, (900,)), torch.rand(900)
    masked = torch.rand(300, 31) < 0.3
    mask = masked * torch.tensor(-1e30)
    found = loss.over_catalogue(
        users, items, target, lambda low, high, scores: scores.copy_(mask[low:high]), weight, owners
    )
    got = torch.autograd.grad(found, (users, items))
    hidden = masked.index_put((owners, target), torch.tensor(False))
    logs = ((users @ items.T) / 0.7).masked_fill(hidden, -1e30).log_softmax(1)
    reference = -(logs[owners, target] * weight).sum() / weight.sum()
    expected = torch.autograd.grad(reference, (users, items))
    assert torch.isclose(found, reference, atol=1e-5)
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def set_config(**changes):
    return {
        "defaults": "fixed",
        "dim": 16,
        "features": {"history": {"type": "set", "hidden_share": 0.4}},
        "user": {"features": {"identity": None}},
        "fusion": {"type": "residual"},
        "interaction": {"type": "cosine", "temperature": 0.2},
        "loss": {"type": "full_softmax"},
        "split": {"protocol": "random"},
        "training": {"epochs": 6, "batch_size": 120, "optimizer": {"learning_rate": 0.01}},
        **changes,
    }


def two_groups(users=80, items=30, each=10, seed=0):
    """Half of the users have even items only, the others odd ones. Nothing else is known."""
    rng = np.random.default_rng(seed)
    rows = [(u, 2 * i + u % 2) for u in range(users) for i in rng.choice(items // 2, each, replace=False)]
    return Dataset(
        pa.table({"user_id": [f"u{n:02d}" for n in range(users)]}),
        pa.table({"item_id": [f"i{n:02d}" for n in range(items)]}),
        pa.table({"user_id": [f"u{u:02d}" for u, _ in rows], "item_id": [f"i{i:02d}" for _, i in rows]}),
    )


@pytest.fixture(scope="module")
def grouped():
    config = set_config(training={"epochs": 40, "batch_size": 120, "optimizer": {"learning_rate": 0.01}})
    return Recommender.from_config(config).fit(two_groups(), progress=False)


def test_a_new_user_is_represented_by_the_items_of_the_request(grouped):
    request = {
        "user_data": [{"user_id": "new"}],
        "interactions": [{"user_id": "new", "item_id": item} for item in ("i02", "i04", "i10")],
    }
    answer = infer(grouped, read_partial(request, grouped.config.data, {}), 10)
    ranked = [one["item_id"] for one in answer["users"][0]["recommendations"]]
    assert sum(int(item[1:]) % 2 == 0 for item in ranked) >= 9


def test_before_a_part_a_set_contains_all_interactions_of_earlier_parts(grouped):
    """Without timestamps, the order of the file does not decide what came before a held-out interaction."""
    model = grouped.model
    split, data = model.learning.split, model.dataset
    lengths = model.before("validation").columns["user"]["history.events"].values["items"].lengths
    assert torch.equal(lengths, torch.from_numpy(np.bincount(data.user_rows[split.train], minlength=len(data.users))))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": {"type": "softmax"}, "negatives": {"type": "in_batch", "block": 16}},
        {"loss": {"type": "softmax"}, "negatives": {"type": "shared", "size": 16}},
        {"loss": {"type": "bpr"}, "negatives": {"type": "uniform"}},
        {"interaction": {"type": "mlp"}},
        {"fusion": {"type": "attention"}, "interaction": {"type": "attention"}},
        {"data": {"min_rating": 3.0}},
        {"heads": {"rating": {"type": "rating"}}},
        {"history_dropout": 0.3, "encoder_dim": 8},
    ],
    ids=str,
)
def test_sets_are_learned_with_every_objective_and_interaction(changes):
    fitted = Recommender.from_config(set_config(**changes)).fit(TIMELESS, progress=False)
    assert fitted.result.history[-1]["loss"] < fitted.result.history[0]["loss"]


def test_a_set_cannot_be_combined_with_a_sequence():
    config = set_config(features={"history": {"type": "set", "fields": {"recent": {"type": "history"}}}})
    with pytest.raises(ConfigError, match="no order"):
        Recommender.from_config(config).fit(TIMELESS, progress=False)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_model(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one, other = (Recommender.from_config(set_config()).fit(TIMELESS, progress=False) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    for left, right in zip(one.model.scorer.parameters(), other.model.scorer.parameters(), strict=True):
        assert left.equal(right)


def test_a_loaded_model_gives_the_same_lists(grouped, tmp_path):
    again = Recommender.load(grouped.save(tmp_path / "model"))
    assert again.recommend(None, 5).equals(grouped.recommend(None, 5))
    assert again.with_data(two_groups()).evaluate("test") == pytest.approx(grouped.metrics["test"])


def test_a_row_of_a_ragged_table_without_items_is_the_learned_vector():
    encoder = set_encoder()
    empty = {"items": Ragged(torch.empty(0, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))}
    assert torch.equal(encoder(empty, torch.randn(ITEMS, DIM)), encoder.shift.expand(3, -1))
