"""graph_layers: equal to the equations of LightGCN, over training positives only, and saved with the model."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config, small_dataset

from anyrec.core.contracts import Context
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.model.graph import Graph
from anyrec.recommender import Recommender
from anyrec.testing import check_encoder

SHARED = {"identity": {"graph_layers": 2}}


def fit(dataset=None, layers=2, **changes):
    features = {"identity": {"graph_layers": layers}} | changes.pop("features", {})
    config = small_config(features=features, **changes)
    return Recommender.from_config(config).fit(dataset or small_dataset(), progress=False)


def encoders(recommender):
    towers = (recommender.model.scorer.user, recommender.model.scorer.item)
    return [tower.encoders[tower.features.index("identity.id")] for tower in towers]


def paper(users, items, pairs, layers):
    """Equations 7, 8 and the mean of the layers, dense and in a loop: (users, dim), (items, dim)."""
    seen = torch.zeros(len(users), len(items), dtype=users.dtype)
    seen[list(pairs[0]), list(pairs[1])] = 1
    above, below = seen.sum(1), seen.sum(0)
    norm = (above[:, None] * below[None, :]).sqrt()
    norm = torch.where(norm > 0, seen / norm, 0.0)
    layer, total = (users, items), (users, items)
    for _ in range(layers):
        layer = (norm @ layer[1], norm.T @ layer[0])
        total = (total[0] + layer[0], total[1] + layer[1])
    return total[0] / (layers + 1), total[1] / (layers + 1)


def draw(seed, users=7, items=5, edges=18, dim=3):
    """edges: with repeats; some rows have none."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    vectors = [torch.randn(n, dim, dtype=torch.float64).requires_grad_() for n in (users, items)]
    return *vectors, (rng.integers(0, users, edges), rng.integers(0, items, edges))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), layers=st.integers(1, 4), edges=st.integers(0, 30))
def test_vectors_and_gradients_equal_the_equations_of_the_paper(seed, layers, edges):
    users, items, pairs = draw(seed, edges=edges)
    graph = Graph(users, items, pairs, layers)
    expected, mine = paper(users, items, pairs, layers), (graph.vectors("user"), graph.vectors("item"))
    weights = [torch.randn_like(part) for part in expected]
    for one, other in zip(mine, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(sum((w * t).sum() for w, t in zip(weights, expected, strict=True)), (users, items))
    found = torch.autograd.grad(sum((w * t).sum() for w, t in zip(weights, mine, strict=True)), (users, items))
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_a_step_propagates_once_and_again_after_the_weights_change():
    users, items, pairs = draw(0)
    graph, passes = Graph(users, items, pairs, 2), []
    once = graph.mean_of_layers
    graph.mean_of_layers = lambda start: passes.append(1) or once(start)
    optimizer = torch.optim.AdamW([users, items], 0.1, weight_decay=0.1, fused=True)
    for step in range(3):
        passes.clear()
        for _ in range(2):
            loss = (graph.vectors("user") @ graph.vectors("item").T).square().sum()
        assert len(passes) == 1
        optimizer.zero_grad()
        loss.backward()
        assert len(passes) == 2, "one forth, one back"
        optimizer.step()
        with torch.no_grad():
            expected = paper(users, items, pairs, 2)
            assert torch.allclose(graph.vectors("user"), expected[0]), step
            assert torch.allclose(graph.vectors("item"), expected[1])
            assert len(passes) == 3
    with torch.no_grad():
        users.copy_(torch.zeros_like(users))
        assert torch.allclose(graph.vectors("user"), paper(users, items, pairs, 2)[0])


def test_two_backward_passes_before_a_step_add_up():
    users, items, pairs = draw(1)
    graph = Graph(users, items, pairs, 2)
    graph.vectors("user").square().sum().backward()
    once = users.grad.clone()
    graph.vectors("user").square().sum().backward()
    assert torch.allclose(users.grad, 2 * once)


def test_only_training_positives_are_edges():
    recommender = fit(small_dataset(), data={"min_rating": 3}, training={"epochs": 1, "batch_size": 128})
    dataset, split = recommender.dataset, recommender.model.split
    rows = split.train[label_interactions(dataset, recommender.config.data).positive[split.train]]
    user, item = encoders(recommender)
    pairs = (
        user.prepare(dataset.ids("user")).values.numpy()[dataset.user_rows[rows]],
        item.prepare(dataset.ids("item")).values.numpy()[dataset.item_rows[rows]],
    )
    assert 0 < len(rows) < len(split.train)
    with torch.no_grad():
        expected = paper(user.start.double(), item.start.double(), pairs, 2)
        assert torch.allclose(user.propagate().double(), expected[0], atol=1e-6)
        assert torch.allclose(item.propagate().double(), expected[1], atol=1e-6)


def test_held_out_interactions_leave_the_model_bit_identical():
    """The held-out interactions are changed to other items."""
    data = small_dataset()
    config = {"split": {"protocol": "leave_last_out"}, "training": {"epochs": 2, "batch_size": 64, "patience": None}}
    config["training"]["evaluate_every"] = 2
    first = fit(data, **config)
    ids = data.interactions.column("item_id").to_pylist()
    held = np.concatenate([first.model.split.validation, first.model.split.test])
    for row in held:
        ids[row] = f"i{(int(ids[row][1:]) + 1) % 40:03d}"
    table = data.interactions.set_column(1, "item_id", pa.array(ids))
    second = fit(Dataset(data.users, data.items, table, roles=data.roles), **config)
    assert np.array_equal(first.model.split.train, second.split.train)
    assert not table.equals(data.interactions)
    one, two = first.model.scorer.state_dict(), second.model.scorer.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_loaded_model_needs_no_graph_and_gives_the_same_lists_lists(tmp_path):
    recommender = fit(data={"min_rating": 2}, id_dropout=0.2)
    again = Recommender.load(recommender.save(tmp_path / "model"))
    assert [encoder.propagate for encoder in encoders(again)] == [None, None]
    assert again.recommend(None, 5).equals(recommender.recommend(None, 5))
    people = recommender.dataset.users
    assert again.embed_users(people).equals(recommender.embed_users(people))
    strangers = people.slice(0, 3).set_column(0, "user_id", pa.array(["x", "y", "z"]))
    assert again.embed_users(strangers).equals(recommender.embed_users(strangers))
    again.save(tmp_path / "copy")
    assert Recommender.load(tmp_path / "copy").embed_items().equals(recommender.embed_items())


def test_a_state_dict_holds_the_propagated_vectors_of_its_own_weights():
    recommender = fit(training={"epochs": 2, "batch_size": 128, "patience": None})
    user, item = encoders(recommender)
    with torch.no_grad():
        user.start.add_(1.0)
    state = recommender.model.scorer.state_dict()
    name = next(key for key in state if key.startswith("user.") and key.endswith("propagated"))
    assert torch.equal(state[name], user.propagate())
    assert not torch.allclose(state[name], state[name.replace("propagated", "start")])


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    whole = {"epochs": 4, "batch_size": 64, "patience": None}
    straight = fit(training=whole)
    config = small_config(features=SHARED, training=whole)
    stop = Recommender.from_config(config)

    def halt(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop.fit(small_dataset(), run_dir=tmp_path, progress=False, report=halt)
    resumed = Recommender.from_config(config).fit(small_dataset(), run_dir=tmp_path, resume=True, progress=False)
    one, two = straight.model.scorer.state_dict(), resumed.model.scorer.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def rings(size=10, count=30, seed=0):
    """In each ring, user n has items n and n + 1 in training, n + 2 in validation, n - 1 in test."""
    rows = [
        (f"u{ring:02d}-{n}", f"i{ring:02d}-{(n + place) % size}", step)
        for ring in range(count)
        for n in range(size)
        for step, place in enumerate((0, 1, 2, -1))
    ]
    rows = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    users, items = ({"user_id": sorted({row[0] for row in rows})}, {"item_id": sorted({row[1] for row in rows})})
    times = pa.array([row[2] * 3_600_000_000 for row in rows], pa.timestamp("us", "UTC"))
    interactions = pa.table({"user_id": [r[0] for r in rows], "item_id": [r[1] for r in rows], "timestamp": times})
    return Dataset(pa.table(users), pa.table(items), interactions)


def test_items_of_similar_users_are_found_that_vectors_without_a_graph_do_not_find():
    """A user shares one item with each neighbour, and the neighbour has the held-out item."""
    config = {
        "split": {"protocol": "leave_last_out"},
        "loss": {"type": "full_softmax"},
        "training": {"epochs": 15, "batch_size": 128, "patience": None, "optimizer": {"learning_rate": 0.01}},
    }
    plain, graph = (fit(rings(), layers, **config).metrics["test"]["recall@5"] for layers in (0, 3))
    assert graph > 0.6
    assert graph > 3 * plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": {"features": {"identity": None}}, "features": SHARED}, "no identity feature"),
        ({"item": {"features": SHARED}}, "0 on the user side and 2 on the item side"),
        ({"item": {"features": {"identity": {"graph_layers": 3}}}, "features": SHARED}, "2 on the user side and 3"),
        ({"features": {"identity": {"graph_layers": 2, "sparse": True}}}, "sparse cannot go with graph_layers"),
        ({"features": {"identity": {"graph_layers": -1}}}, "graph_layers"),
        ({"features": SHARED, "training": {"optimizer": {"sparse": True}}}, "no update is sparse"),
        (
            {"features": SHARED, "training": {"optimizer": {"max_norm": 1.0}}},
            "no update is sparse or limited to some rows",
        ),
    ],
)
def test_options_that_exclude_a_graph_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Recommender.from_config(small_config(**changes)).fit(small_dataset(), progress=False)


def test_large_tables_with_a_graph_stay_dense_and_have_weight_decay():
    options = {"sparse_rows": 1, "weight_decay": 0.5, "learning_rate": 0.01}
    small = {"epochs": 2, "batch_size": 128, "patience": None}
    decayed = fit(training={**small, "optimizer": options})
    plain = fit(training={**small, "optimizer": {**options, "weight_decay": 0.0}})
    for one, other in zip(encoders(decayed), encoders(plain), strict=True):
        assert one.start.norm() < other.start.norm()


def test_an_encoder_with_graph_layers_keeps_the_contract():
    check_encoder(discover().get("encoder", "identity"), params={"graph_layers": 2}, context=Context())
