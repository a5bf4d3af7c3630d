"""Training: resumes exactly, stops early, uses weights and explicit negatives, refuses what cannot be."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from forked import kill
from small import small_config, small_dataset
from torch import nn

from anyrec.core.config import Config, DataConfig, OptimizerConfig, SchedulerConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import AnyrecError, ConfigError, DataError, ModelError
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.positives import Positives
from anyrec.recommender import Recommender
from anyrec.training.explicit_negatives import ExplicitNegatives
from anyrec.training.loop import Batches
from anyrec.training.optimizers import Optimizer, choose_sparse_tables, learning_rate
from anyrec.training.progress import Progress
from anyrec.training.run_origin import another_course
from anyrec.training.samples import make_samples

LOSSES = discover().names("loss")
SAMPLERS = [name for name in discover().names("sampler") if name != "labelled"]  # it draws none: test_rankers.py


def fit(dataset=None, run_dir=None, resume=False, **changes):
    return Recommender.from_config(small_config(**changes)).fit(
        dataset or small_dataset(), run_dir=run_dir, resume=resume, progress=False
    )


def training(**options):
    return {"epochs": 4, "batch_size": 64, "patience": None, **options}


def same(first, second):
    one, two = first.model.scorer.state_dict(), second.model.scorer.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_the_planted_taste(loss):
    """Tastes by occupation: after a few epochs the model ranks held-out items better than chance would."""
    in_batch = {"negatives": {"type": "in_batch", "block": 32}}
    drawn = {"full_softmax": {}, "softmax": in_batch, "infonce": in_batch}
    recommender = fit(
        loss={"type": loss},
        **drawn.get(loss, {"negatives": {"type": "uniform"}}),
        training=training(epochs=12, optimizer={"learning_rate": 0.01}),
    )
    assert recommender.metrics["test"]["recall@10"] > 1.25 * 10 / 33


@pytest.fixture(scope="module")
def tastes():
    """Data in which users prefer the items with the tag of their occupation, and how well popularity ranks them.

    The validation part: before it popularity has counted what a model learns from, before the test part it has counted
    the validation part as well.
    """
    data = small_dataset(users=150, items=60, each=10, seed=3)
    return data, fit(data, model={"type": "popularity"}).metrics["validation"]["ndcg@10"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_every_sampler_the_loss_falls_and_the_planted_taste_is_found(sampler, tastes):
    data, popularity = tastes
    block = {"block": 32} if sampler in ("in_batch", "mixed") else {}
    options = training(epochs=10, optimizer={"learning_rate": 0.01})
    recommender = fit(data, negatives={"type": sampler, **block}, loss={"type": "softmax"}, training=options)
    losses = [entry["loss"] for entry in recommender.result.history]
    assert losses[-1] < 0.75 * losses[0]
    assert recommender.metrics["validation"]["ndcg@10"] > 2 * popularity
    lists = recommender.recommend(None, 60)  # all items that a user has not had
    jobs = dict(zip(data.users["user_id"].to_pylist(), data.users["categorical.job"].to_pylist(), strict=True))
    tags = dict(zip(data.items["item_id"].to_pylist(), data.items["categorical.tags"].to_pylist(), strict=True))
    pairs = zip(lists["user_id"].to_pylist(), lists["item_id"].to_pylist(), strict=True)
    preferred = np.array([jobs[user] in tags[item] for user, item in pairs])
    assert preferred[lists["rank"].to_numpy() <= 10].mean() > 2 * preferred.mean()


@pytest.mark.parametrize(
    "optimizer", [{"type": "adamw"}, {"type": "sgd", "learning_rate": 0.1}, {"type": "adagrad"}, {"sparse": True}]
)
def test_a_run_that_is_resumed_ends_bitwise_as_one_that_never_stopped(tmp_path, optimizer):
    options = training(optimizer=optimizer, scheduler={"type": "constant"})
    whole = fit(training=options, fusion={"type": "attention"})
    fit(training={**options, "epochs": 2}, run_dir=tmp_path, fusion={"type": "attention"})
    resumed = fit(training=options, run_dir=tmp_path, resume=True, fusion={"type": "attention"})
    assert same(whole, resumed)
    assert [e["loss"] for e in whole.result.history] == [e["loss"] for e in resumed.result.history]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def train_on(ready, folder):
    """Start or resume a run, and call `ready` after each epoch."""
    recommender = Recommender.from_config(small_config(training=training(epochs=12)))
    recommender.fit(small_dataset(), run_dir=folder, resume=True, progress=False, report=lambda _: ready())


def test_a_run_killed_at_any_moment_resumes_exactly(tmp_path):
    for delay in (0.0, 0.03, 0.07):
        kill(train_on, tmp_path, after=delay)
    options = training(epochs=12)
    assert same(fit(training=options), fit(training=options, run_dir=tmp_path, resume=True))


def test_a_checkpoint_of_another_config_or_a_damaged_one_is_refused(tmp_path):
    fit(training=training(epochs=1), run_dir=tmp_path)
    with pytest.raises(ModelError, match="another config"):
        fit(training=training(), run_dir=tmp_path, resume=True, dim=8)
    file = tmp_path / "checkpoints" / "last.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        fit(training=training(), run_dir=tmp_path, resume=True)


def changed(data, name, values):
    """The data with another column of its interactions."""
    other = small_dataset()
    other.interactions = data.interactions
    if name in other.interactions.column_names:
        other.interactions = other.interactions.drop_columns([name])
    other.interactions = other.interactions.append_column(name, pa.array(values))
    return other


def other_text(data):
    other = small_dataset()
    titles = other.items["text.title"].to_pylist()
    place = other.items.column_names.index("text.title")
    other.items = other.items.set_column(place, "text.title", pa.array(["a new title", *titles[1:]]))
    return other


ROWS = range(480)
OTHERS = {
    "ratings": (lambda data: changed(data, "rating", [float(n % 4) for n in ROWS]), {}, "the table of interactions"),
    "weights": (lambda data: changed(data, "weight", [1.0 + n % 2 for n in ROWS]), {}, "weights of training positives"),
    "labels": (lambda data: changed(data, "label", [n % 2 for n in ROWS]), {}, "explicit negatives"),
    "a text of one item": (other_text, {}, "values of the item feature text.title"),
    "a smaller vocabulary": (
        lambda data: data,
        {"features": {"text": {"buckets": 50}}},
        r"config features.text.buckets",
    ),
    "another seed": (lambda data: data, {"seed": 1}, r"config seed \(0, now 1\)"),
    "another metric": (lambda data: data, {"training": training(metric="mrr@10")}, "config training.metric"),
    "a falling rate": (
        lambda data: data,
        {"training": training(scheduler={"type": "cosine"})},
        "config training.scheduler.type",
    ),
    "fewer epochs": (lambda data: data, {"training": training(epochs=1)}, "past training.epochs"),
}


@pytest.fixture(scope="module")
def run_of_three_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fit(training=training(epochs=3, optimizer={"learning_rate": 0.2}), run_dir=folder)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_other_data_or_settings_is_not_resumed_and_the_message_says_what_differs(
    run_of_three_epochs, tmp_path, name
):
    make, changes, said = OTHERS[name]
    options = {**training(epochs=5), **changes.get("training", {}), "optimizer": {"learning_rate": 0.2}}
    shutil.copytree(run_of_three_epochs, tmp_path / "run")
    with pytest.raises(ModelError, match=said):
        fit(make(small_dataset()), tmp_path / "run", resume=True, **{**changes, "training": options})


def test_a_run_that_a_smaller_patience_would_have_stopped_before_is_not_resumed(tmp_path):
    history = [{"epoch": n, "validation": {"ndcg@10": value}} for n, value in enumerate([0.3, 0.2, 0.1, 0.4], 1)]
    state = Progress(epoch=4, history=history)
    assert not another_course(state, Config(training=training(epochs=9, patience=3)))
    for patience, stops in ((1, 2), (2, 3)):
        reason = another_course(state, Config(training=training(epochs=9, patience=patience)))
        assert f"the run would have stopped at epoch {stops}" in reason


def test_a_falling_learning_rate_is_not_resumed_with_more_epochs(tmp_path):
    options = training(scheduler={"type": "linear"})
    fit(training={**options, "epochs": 2}, run_dir=tmp_path)
    with pytest.raises(ModelError, match=r"config training.epochs \(2, now 4\)"):
        fit(training=options, run_dir=tmp_path, resume=True)


def test_a_run_that_ended_between_validations_is_not_resumed_with_more_epochs(tmp_path):
    fit(training=training(epochs=3, evaluate_every=2), run_dir=tmp_path)
    with pytest.raises(ModelError, match="validated at epoch 3, which was its last"):
        fit(training=training(evaluate_every=2), run_dir=tmp_path, resume=True)


def test_the_same_data_from_another_container_resume_a_run(tmp_path):
    data = small_dataset()
    whole = fit(data, training=training())
    fit(data, tmp_path, training=training(epochs=2))
    frames = [
        pa.table(
            {
                name: column.dictionary_encode() if pa.types.is_string(column.type) and "." in name else column
                for name, column in zip(table.column_names[::-1], table.columns[::-1], strict=True)
            }
        )
        for table in (data.users, data.items, data.interactions)
    ]
    other = Dataset.from_tables(*frames, DataConfig(roles=data.roles))
    assert same(whole, fit(other, tmp_path, resume=True, training=training()))


def test_a_fresh_start_removes_the_checkpoints_of_an_older_run(tmp_path):
    fit(training=training(epochs=2, refit=True), run_dir=tmp_path)
    files = [tmp_path / "checkpoints" / "last.safetensors", tmp_path / "refit" / "checkpoints" / "last.safetensors"]
    assert all(file.is_file() for file in files)

    def stop(entry):
        raise KeyboardInterrupt

    recommender = Recommender.from_config(small_config(dim=8, training=training(epochs=2)))
    with pytest.raises(KeyboardInterrupt):
        recommender.fit(small_dataset(), run_dir=tmp_path, progress=False, report=stop)
    assert not files[1].exists()
    resumed = fit(dim=8, training=training(epochs=2), run_dir=tmp_path, resume=True)
    assert same(resumed, fit(dim=8, training=training(epochs=2)))


def test_the_best_epoch_is_kept_and_patience_ends_the_run():
    recommender = fit(training={"epochs": 60, "batch_size": 32, "patience": 2, "optimizer": {"learning_rate": 0.05}})
    result = recommender.result
    measured = [entry["validation"]["ndcg@10"] for entry in result.history]
    assert len(measured) == result.best_epoch + 2 < 60
    assert max(measured) == result.best_metric == measured[result.best_epoch - 1]
    assert recommender.metrics["validation"]["ndcg@10"] == result.best_metric


@pytest.mark.parametrize("every", [2, 3])
def test_patience_counts_validations_and_not_the_epochs_between_them(every):
    options = {"epochs": 90, "batch_size": 32, "patience": 2, "optimizer": {"learning_rate": 0.05}}
    result = fit(training={**options, "evaluate_every": every}).result
    validated = [entry["epoch"] for entry in result.history if "validation" in entry]
    assert validated == list(range(every, len(result.history) + 1, every))
    assert len(result.history) == result.best_epoch + 2 * every < 90


def test_the_last_epoch_is_validated_even_if_it_is_no_multiple_of_evaluate_every():
    history = fit(training=training(epochs=5, evaluate_every=3)).result.history
    assert [entry["epoch"] for entry in history if "validation" in entry] == [3, 5]


PAIRS = [(loss, SAMPLERS[n % len(SAMPLERS)]) for n, loss in enumerate(LOSSES)]


@pytest.mark.parametrize(
    "features",
    [{}, {"history": {"window": 4}}, {"history": {"window": 4, "block": "bidirectional", "mask_share": 0.3}}],
)
def test_batches_without_a_positive_are_passed_over(features):
    """Many views and few purchases: most windows of events hold no positive."""
    data = small_dataset(users=30)
    kinds = ["buy" if n % 47 == 0 else "view" for n in range(len(data.interactions))]
    place = data.interactions.column_names.index("interaction_type")
    data.interactions = data.interactions.set_column(place, "interaction_type", pa.array(kinds))
    for loss, sampler in PAIRS:
        recommender = fit(
            data,
            data={"positive_types": {"buy": 1}},
            split={"protocol": "none"},
            features={**features},
            loss={"type": loss},
            **({} if loss == "full_softmax" else {"negatives": {"type": sampler}}),
            training=training(epochs=1, batch_size=4 if features else 64),
        )
        assert np.isfinite([entry["loss"] for entry in recommender.result.history]).all()
        assert all(torch.isfinite(value).all() for value in recommender.model.scorer.state_dict().values())


def test_weights_count_the_same_with_one_positive_a_step_as_with_many():
    """Losses are means over the weights of a batch; a batch of one must not lose its weight by that."""
    data = small_dataset(users=20)
    kinds = np.array(data.interactions["interaction_type"].to_pylist())

    def gap(types):
        recommender = fit(
            data,
            data={"positive_types": types},
            split={"protocol": "none"},
            negatives={"type": "uniform"},
            training=training(epochs=1, batch_size=1, optimizer={"learning_rate": 0.02}),
        )
        scores = np.array(recommender.score(data.interactions.select(["user_id", "item_id"]))["score"])
        return scores[kinds == "buy"].mean() - scores[kinds == "view"].mean()

    assert gap({"buy": 1.0, "view": 0.01}) > gap({"buy": 0.01, "view": 1.0}) + 0.5


def test_no_explicit_negative_is_a_training_positive_of_its_user():
    data = small_dataset()
    labels = np.ones(len(data.interactions), np.int8)
    labels[::3] = 0
    both = pa.concat_tables([data.interactions, data.interactions])
    data.interactions = both.append_column("label", pa.array(np.concatenate([labels, np.ones_like(labels)])))
    read = label_interactions(data, Recommender.from_config(small_config()).config.data)
    rows = np.arange(len(data.interactions))
    samples = make_samples(data, rows, read, nn.ModuleDict())
    assert read.negative.any() and not len(samples.negatives[0])
    samples = make_samples(data, rows[:480], read, nn.ModuleDict())
    assert len(samples.negatives[0]) == (labels == 0).sum()
    positives = Positives(samples.users, samples.items, len(data.users), len(data.items))
    drawn, there = ExplicitNegatives(samples, len(data.users)).draw(samples.users, torch.Generator().manual_seed(0))
    assert there.any()
    assert not positives.contains(samples.users, drawn.unsqueeze(1))[there].any()


def test_an_unknown_metric_is_an_error():
    with pytest.raises(ConfigError, match="no such metric; use auc, or ndcg"):
        fit(training=training(metric="accuracy"))


def test_a_loss_that_is_not_finite_stops_with_what_to_do():
    with pytest.raises(AnyrecError, match=r"lower training.optimizer.learning_rate"):
        fit(training=training(optimizer={"type": "sgd", "learning_rate": 1000}))


def test_explicit_negatives_are_pushed_down():
    data = small_dataset()
    labels = np.ones(len(data.interactions), np.int8)
    labels[::4] = 0
    data.interactions = data.interactions.append_column("label", pa.array(labels))

    def disliked(**changes):
        recommender = fit(
            data, split={"protocol": "none"}, training=training(epochs=15), negatives={"type": "uniform"}, **changes
        )
        pairs = data.interactions.filter(pa.array(labels == 0)).select(["user_id", "item_id"])
        liked = data.interactions.filter(pa.array(labels == 1)).select(["user_id", "item_id"])
        return np.mean(recommender.score(pairs)["score"].to_numpy()) - np.mean(
            recommender.score(liked)["score"].to_numpy()
        )

    assert disliked(explicit_negatives=True) < disliked(explicit_negatives=False) < 0


def test_interactions_with_more_weight_decide_the_ranking():
    """Two kinds of interaction with opposite tastes: the one that weighs more wins."""
    data = small_dataset()
    kinds = data.interactions["interaction_type"].to_pylist()

    def mean_scores(types):
        recommender = fit(
            data, data={"positive_types": types}, split={"protocol": "none"}, training=training(epochs=15)
        )
        scores = np.array(recommender.score(data.interactions.select(["user_id", "item_id"]))["score"])
        return scores[np.array(kinds) == "buy"].mean() - scores[np.array(kinds) == "view"].mean()

    assert mean_scores({"buy": 1.0, "view": 0.01}) > mean_scores({"buy": 0.01, "view": 1.0})


def test_heads_learn_their_targets():
    data = small_dataset()
    data.interactions = data.interactions.set_column(
        data.interactions.column_names.index("rating"),
        "rating",
        pa.array([1.0 + 4.0 * (int(name[1:]) % 2) for name in data.interactions["item_id"].to_pylist()]),
    )
    recommender = fit(
        data, heads={"stars": {"type": "rating"}}, split={"protocol": "none"}, training=training(epochs=25)
    )
    pairs = data.interactions.select(["user_id", "item_id"])
    predicted = recommender.score(pairs)["stars"].to_numpy()
    assert np.corrcoef(predicted, data.interactions["rating"].to_numpy())[0, 1] > 0.8
    with pytest.raises(ConfigError, match="no interaction has 'rating'"):
        data.interactions = data.interactions.drop_columns(["rating"])
        fit(data, heads={"stars": {"type": "rating"}})


def test_data_without_a_positive_are_an_error():
    with pytest.raises(DataError, match="no positive interaction"):
        Recommender.from_config(small_config(data={"min_rating": 99})).fit(small_dataset())


def test_sparse_tables_take_sparse_steps_and_match_what_they_should():
    config = OptimizerConfig(sparse=True)
    model = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 1))
    optimizer = Optimizer(model, config)
    before = model[0].weight.detach().clone()
    model(torch.tensor([3, 7])).sum().backward()
    optimizer.step()
    moved = (model[0].weight != before).any(1)
    assert moved.nonzero().flatten().tolist() == [3, 7]
    assert model[0].weight.grad.is_sparse
    large = nn.Sequential(nn.Embedding(50, 4))
    choose_sparse_tables(large, OptimizerConfig(sparse_rows=50))
    assert large[0].sparse
    decayed = nn.Sequential(nn.Embedding(50, 4))
    choose_sparse_tables(decayed, OptimizerConfig(sparse_rows=50, weight_decay=0.1))
    assert not decayed[0].sparse


def test_the_learning_rate_rises_then_falls_as_scheduled():
    rates = [learning_rate(s, 100, SchedulerConfig(type="cosine", warmup=0.1), 1.0) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.01
    linear = [learning_rate(s, 10, SchedulerConfig(type="linear"), 2.0) for s in range(10)]
    assert linear == pytest.approx(list(np.linspace(2.0, 0.2, 10)))


@pytest.mark.parametrize(
    ("rows", "size", "group"), [(100, 32, 8), (101, 32, 8), (5, 64, 256), (1000, 100, 1), (256, 256, 256)]
)
def test_an_epoch_sees_every_positive_in_whole_groups(rows, size, group):
    batches = Batches(rows, size, group)
    epoch = [batch.rows for batch in batches.epoch(torch.Generator().manual_seed(0))]
    assert len(epoch) == batches.count
    assert all(len(batch) % batches.group == 0 for batch in epoch)
    assert set(torch.cat(epoch).tolist()) == set(range(rows))
    assert sum(map(len, epoch)) < rows + batches.group


def test_positives_may_be_chosen_by_type():
    data = small_dataset()
    labels = label_interactions(
        data, Recommender.from_config(small_config(data={"positive_types": {"buy": 1}})).config.data
    )
    assert labels.positive.sum() == len(data.interactions) / 2
