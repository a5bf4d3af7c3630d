"""Rankers equal loops written from their papers; training on explicit labels only."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from small import small_config, small_dataset
from torch.nn import functional

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError
from anyrec.core.windows import Batch
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.evaluation.classification import auc, score_pairs
from anyrec.recommender import Recommender
from anyrec.training.make_objective import make_objective
from anyrec.training.samples import TrainingData, make_samples

REGISTRY = discover()
FIELDS = (("id", "age"), ("id", "genres", "year"))
VARIANTS = [
    ("dcn", {}),
    ("dcn", {"cross_layers": 1, "hidden_dims": [5]}),
    ("dcn", {"cross_layers": 3, "rank": 4}),
    ("dcn", {"structure": "stacked"}),
    ("dcn", {"structure": "stacked", "rank": 3}),
    ("deepfm", {}),
    ("dlrm", {}),
]


def make(name, options, dim=4, batch=3, items=5):
    """The ranker in float64, its biases not zero, with users (batch, 2, dim) and items (items, 3, dim)."""
    torch.manual_seed(0)
    cls = REGISTRY.get("interaction", name)
    ranker = cls(dim, cls.Params(**options), FIELDS).double().eval()
    return (
        ranker,
        torch.randn(batch, 2, dim, dtype=torch.float64),
        torch.randn(items, 3, dim, dtype=torch.float64),
    )


def paper(ranker, user, item):
    """The score of one pair, feature by feature; user: (2, dim), item: (3, dim)."""
    vectors = [*user, *item]
    flat = torch.cat(vectors)
    if ranker.type == "dcn":
        crossed = flat
        for cross in ranker.crosses:
            mapped = crossed if cross.down is None else cross.down.weight @ crossed
            crossed = flat * (cross.up.weight @ mapped + cross.up.bias) + crossed
        if ranker.params.structure == "stacked":
            return ranker.out.weight[0] @ perceptron(ranker.deep, crossed) + ranker.out.bias[0]
        both = torch.cat([crossed, perceptron(ranker.deep, flat)])
        return ranker.out.weight[0] @ both + ranker.out.bias[0]
    if ranker.type == "deepfm":
        machine = sum(vectors[f] @ vectors[g] for f in range(5) for g in range(f + 1, 5))
        first = sum(ranker.first.weight[0, n * 4 : n * 4 + 4] @ vector for n, vector in enumerate(vectors))
        return first + ranker.first.bias[0] + machine + ranker.out.weight[0] @ perceptron(ranker.deep, flat)
    within = [
        torch.stack([side[f] @ side[g] for f in range(len(side)) for g in range(f + 1, len(side))])
        for side in (user, item)
    ]
    between = torch.stack([u @ i for u in user for i in item])
    read = torch.cat([user.flatten(), within[0], item.flatten(), within[1], between])
    return ranker.out.weight[0] @ perceptron(ranker.deep, read) + ranker.out.bias[0]


def perceptron(deep, vector):
    for layer in (deep.first, *deep.rest):
        vector = (layer.weight @ vector + layer.bias).clamp(min=0)
    return vector


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_a_score_equals_the_equation_of_the_paper(name, options):
    ranker, users, items = make(name, options)
    with torch.no_grad():
        expected = torch.stack([torch.stack([paper(ranker, user, item) for item in items]) for user in users])
        assert torch.allclose(ranker.score(users, items), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_shared_items_have_the_same_scores_as_items_of_each_user(name, options):
    ranker, users, items = make(name, options)
    own = items.expand(3, *items.shape)
    assert torch.allclose(ranker.score(users, items), ranker.score(users, own), rtol=1e-10, atol=1e-12)
    alone = ranker.score(users, torch.stack([items[1:3], items[2:4], items[0:2]]))
    assert torch.allclose(alone[1], ranker.score(users, items)[1, 2:4], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_scores_from_terms_computed_once_for_the_items_equal_those_of_all_features(name, options):
    ranker, users, items = make(name, options)
    chosen = torch.tensor([[0, 3], [4, 4], [2, 1]])
    terms = [term[chosen] for term in ranker.item_terms(items[:, :2])]
    rest = torch.randn(3, 2, 1, 4, dtype=torch.float64)  # the last feature vector, of the pair
    expected = ranker.score(users, torch.cat([items[chosen][:, :, :2], rest], 2))
    assert torch.allclose(ranker.score_terms(users, terms, rest), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_the_vector_of_a_pair_does_not_depend_on_other_pairs(name, options):
    ranker, users, items = make(name, options)
    pairs = ranker.pair(users, items[:3])
    assert pairs.shape == (3, ranker.pair_dim)
    assert torch.allclose(pairs[1:2], ranker.pair(users[1:2], items[1:2]))


@pytest.mark.parametrize("name", ["dcn", "deepfm", "dlrm"])
def test_one_feature_on_each_side_is_enough(name):
    ranker = REGISTRY.get("interaction", name)(4, None, (("id",), ("id",)))
    assert ranker.score(torch.randn(2, 1, 4), torch.randn(3, 1, 4)).shape == (2, 3)


@pytest.mark.parametrize("name", ["dcn", "deepfm", "dlrm"])
def test_a_masked_feature_cannot_change_the_score(name):
    recommender = fit(small_dataset(), interaction={"type": name})
    model = recommender.model.scorer.eval()
    rows, place = torch.arange(8), model.user.token_names.index("continuous.age")
    values, present = model.user.tokens(recommender.model.columns["user"], rows)
    items = model.represent("item", recommender.model.columns["item"], rows)
    present[:, place] = False
    with torch.no_grad():
        scores = model.score(model.user.fusion.fill(values, present), items)
        for other in (1e30, float("nan")):
            values[:, place] = other
            assert torch.equal(model.score(model.user.fusion.fill(values, present), items), scores)


@pytest.mark.parametrize("name", ["dcn", "deepfm", "dlrm"])
def test_a_planted_cross_is_learned_by_a_ranker_and_not_by_a_sum_of_weights(name):
    """A pair is liked if exactly one of the two categories is the second one, so no single category predicts it."""
    from sklearn.linear_model import LogisticRegression

    dataset, labels, single = crossed()
    recommender = Recommender.from_config(
        {
            "dim": 8,
            "features": {"identity": None},
            "interaction": {"type": name},
            "loss": {"type": "bce"},
            "negatives": {"type": "labelled"},
            "split": {"protocol": "none"},
            "training": {"epochs": 12, "batch_size": 128, "optimizer": {"learning_rate": 0.02}},
        }
    ).fit(dataset, progress=False)
    scores = score_pairs(recommender.model, recommender.dataset.user_rows, recommender.dataset.item_rows)
    assert auc(labels, scores) > 0.99
    linear = LogisticRegression().fit(single, labels)
    assert auc(labels, linear.decision_function(single)) < 0.6


def crossed():
    rng = np.random.default_rng(0)
    users, items = np.arange(80) % 2, np.arange(60) % 2
    rows = np.stack([rng.permutation(60)[:30] for _ in range(80)])
    of_user, of_item = np.repeat(users, 30), items[rows.ravel()]
    labels = of_user != of_item
    dataset = Dataset.from_tables(
        pa.table({"user_id": [f"u{n:02}" for n in range(80)], "categorical.kind": [f"k{n}" for n in users]}),
        pa.table({"item_id": [f"i{n:02}" for n in range(60)], "categorical.sort": [f"s{n}" for n in items]}),
        pa.table(
            {
                "user_id": [f"u{n:02}" for n in np.repeat(np.arange(80), 30)],
                "item_id": [f"i{n:02}" for n in rows.ravel()],
                "label": labels.astype(np.int8),
            }
        ),
    )
    return dataset, labels, np.stack([of_user, of_item], 1)


LABELLED = {"loss": {"type": "bce"}, "negatives": {"type": "labelled"}, "data": {"min_rating": 3.0}}


def fit(dataset, **changes):
    return Recommender.from_config(small_config(**{**LABELLED, **changes})).fit(dataset, progress=False)


def objective_of(recommender):
    """The objective of a fitted recommender, dropout off, with its training rows and their labels."""
    dataset, model, config = recommender.dataset, recommender.model.scorer.eval(), recommender.config
    labels = label_interactions(dataset, config.data)
    samples = make_samples(dataset, recommender.model.split.train, labels, model.heads)
    columns = recommender.model.columns
    data = TrainingData(columns["user"], columns["item"], samples, len(dataset.users), len(dataset.items))
    return make_objective(model, data, config, REGISTRY, torch.Generator().manual_seed(0)), samples


def weighted(dataset):
    """The same with a weight for each interaction."""
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(dataset.interactions))
    table = dataset.interactions.append_column("weight", pa.array(weight))
    return Dataset(dataset.users, dataset.items, table, roles=dataset.roles)


@pytest.mark.parametrize("interaction", ["dot", "mlp", "deepfm"])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_the_loss_is_the_mean_over_the_labelled_rows_by_their_own_labels(interaction, weights, loss):
    dataset = weighted(small_dataset()) if weights else small_dataset()
    options = {"loss": {"type": loss}, "training": {"epochs": 1, "batch_size": 128, "precision": "float32"}}
    objective, samples = objective_of(fit(dataset, interaction={"type": interaction}, **options))
    users = torch.cat([samples.users, samples.negatives[0]])
    items = torch.cat([samples.items, samples.negatives[1]])
    weight = (
        torch.ones(len(users))
        if samples.weights is None
        else torch.cat([samples.weights, torch.ones(len(samples.negatives[0]))])
    )
    label = (torch.arange(len(users)) < len(samples.users)).float()
    rows = torch.tensor([0, 5, 5, len(users) - 1, len(users) - 9])
    with torch.no_grad():
        model = objective.model
        scores = torch.cat(
            [
                model.score(
                    model.represent("user", objective.data.users, users[row : row + 1]),
                    model.represent("item", objective.data.items, items[row : row + 1]),
                )[0]
                for row in rows
            ]
        )
        losses = functional.binary_cross_entropy_with_logits(scores, label[rows], reduction="none")
        if loss == "focal":
            losses = losses * (1 - (-losses).exp()) ** 2
        expected = (losses * weight[rows]).mean()  # weights have mean 1 over all, so that a batch of one keeps its own
        assert objective.loss(Batch(rows)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_labelled_interaction_is_learned_as_often_as_it_occurs_and_no_other_pair_is():
    dataset = small_dataset(each=12)
    recommender = fit(dataset, training={"epochs": 1, "batch_size": 64, "precision": "float32"})
    objective, samples = objective_of(recommender)
    assert objective.rows == len(recommender.model.split.train) == len(samples.users) + len(samples.negatives[0])
    labelled = torch.cat([samples.items, samples.negatives[1]])
    objective.model.zero_grad()
    rows = torch.tensor([0, objective.rows - 1])
    objective.loss(Batch(rows)).backward()
    table = dict(zip(objective.model.item.features, objective.model.item.encoders, strict=True))["identity.id"].table
    moved = table.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    ids = recommender.dataset.ids("item").to_pylist()
    vocabulary = dict(zip(objective.model.item.features, objective.model.item.encoders, strict=True))[
        "identity.id"
    ].vocabulary
    assert sorted(vocabulary.to_pylist()[row] for row in moved) == sorted({ids[int(item)] for item in labelled[rows]})


def test_heads_are_trained_together_with_explicit_labels():
    recommender = fit(small_dataset(), interaction={"type": "dcn"}, heads={"kind": {"type": "interaction_type"}})
    assert np.isfinite([entry["loss"] for entry in recommender.result.history]).all()
    found = recommender.score(recommender.dataset.interactions.select(["user_id", "item_id"]).slice(0, 5))
    assert "kind" in found.column_names


def test_a_loss_that_compares_scores_is_refused_and_the_error_names_the_alternatives():
    with pytest.raises(ConfigError, match="'softmax' compares") as error:
        fit(small_dataset(), loss={"type": "softmax"})
    assert "'bce' or 'focal'" in str(error.value)


def test_labelled_training_without_explicit_negatives_in_the_config_is_refused():
    with pytest.raises(ConfigError, match="only positives"):
        fit(small_dataset(), explicit_negatives=False)


def test_labelled_training_on_data_without_an_explicit_negative_is_refused():
    with pytest.raises(DataError, match="explicit negatives, and no training interaction is one"):
        fit(small_dataset(), data={})


def test_a_ranker_saved_and_loaded_scores_the_same(tmp_path):
    recommender = fit(small_dataset(), interaction={"type": "dlrm"})
    again = Recommender.load(recommender.save(tmp_path / "model"))
    pairs = recommender.dataset.interactions.select(["user_id", "item_id"]).slice(0, 20)
    assert again.score(pairs).equals(recommender.score(pairs))
