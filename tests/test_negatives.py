"""Negatives in training: no item that the user has a training interaction with, and the model's own top items."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from small import small_config, small_dataset

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.data.positives import Positives
from anyrec.recommender import Recommender
from anyrec.training import loop

REGISTRY = discover()
HISTORY = {"features": {"history": {"window": 8, "layers": 1}}}
ITEM_SET = {"features": {"history": {"type": "set"}, "identity": {"init_std": 0.02}}}


def mixed_dataset():
    """Interactions of three kinds: positive (buy), neutral (view), and explicitly negative (label 0)."""
    data = small_dataset(users=40, items=30, each=12)
    labels = pa.array([0 if n % 5 == 0 else None for n in range(len(data.interactions))], pa.int8())
    data.interactions = data.interactions.append_column("label", labels)
    return data


def record_negatives(monkeypatch, **changes):
    """Fit, and return the recommender and the distinct (user row, item row) pairs that counted as negatives."""
    found, make = [], loop.make_objective

    def watched(*args):
        objective = make(*args)
        if hasattr(objective.compare, "over_catalogue") and objective.compare.all_items:
            watch_softmax(objective, found)
        elif objective.top is not None:
            watch_top(objective, found)
        else:
            watch_sampler(objective.sampler, found)
        return objective

    monkeypatch.setattr(loop, "make_objective", watched)
    config = small_config(
        data={"positive_types": {"buy": 1.0}}, training={"epochs": 2, "batch_size": 64, "patience": None}, **changes
    )
    recommender = Recommender.from_config(config).fit(mixed_dataset(), progress=False)
    return recommender, torch.unique(torch.cat(found), dim=0)


def watch_sampler(sampler, found):
    sample = sampler.sample

    def recorded(users, items, ratio, generator):
        drawn = sample(users, items, ratio, generator)
        wide = drawn.items.repeat_interleave(len(users) // len(drawn.items), 0)
        found.append(torch.stack([users[:, None].expand_as(wide), wide], -1)[drawn.valid])
        return drawn

    sampler.sample = recorded


def watch_top(objective, found):
    of, draw = objective.top.of, objective.sampler.sample_top
    users = []

    def remember(batch):
        users[:] = [objective.data.samples.users[batch.rows]]
        return of(batch)

    def recorded(best, there, ratio, generator):
        drawn = draw(best, there, ratio, generator)
        assert drawn.items.shape == (len(best), ratio) and drawn.valid.all()
        assert all(len(set(row)) == ratio for row in drawn.items.tolist())
        found.append(torch.stack([users[0][:, None].expand_as(drawn.items), drawn.items], -1)[drawn.valid])
        return drawn

    objective.top.of, objective.sampler.sample_top = remember, recorded


def watch_softmax(objective, found):
    fill = objective.positives.fill

    def recorded(users, cells, value, elsewhere, first=0):
        filled = fill(users, cells, value, elsewhere, first)
        rows, items = (filled == elsewhere).nonzero(as_tuple=True)
        found.append(torch.stack([users[rows], items + first], 1))
        return filled

    objective.positives.fill = recorded


def pairs_of(recommender, labels):
    """The training pairs that are positive, neutral or negative, as sets."""
    data, train = recommender.dataset, recommender.split.train
    rows = {
        "positive": train[labels.positive[train]],
        "negative": train[labels.negative[train]],
        "neutral": train[~labels.positive[train] & ~labels.negative[train]],
    }
    return {
        name: set(zip(data.user_rows[i].tolist(), data.item_rows[i].tolist(), strict=True)) for name, i in rows.items()
    }


SAMPLERS = [
    {"type": "uniform"},
    {"type": "popularity", "alpha": 1.0},
    {"type": "shared", "size": 64},
    {"type": "in_batch", "block": 8},
    {"type": "mixed", "block": 8, "uniform": 16},
    {"type": "hard", "top": 8},
]


@pytest.mark.parametrize("features", [{}, HISTORY, ITEM_SET], ids=["ids", "history", "set"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda choice: choice["type"])
def test_no_sampler_draws_an_item_that_the_user_has_a_training_interaction_with(monkeypatch, sampler, features):
    recommender, drawn = record_negatives(monkeypatch, negatives=sampler, **features)
    drawn, pairs = set(map(tuple, drawn.tolist())), pairs_of(recommender, recommender.model.learning.labels)
    assert all(pairs.values()) and len(drawn) > 100
    for kind in pairs.values():
        assert not drawn & kind


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda choice: choice["type"])
def test_only_positives_are_excluded_if_the_config_says_so(monkeypatch, sampler):
    recommender, drawn = record_negatives(monkeypatch, negatives={**sampler, "exclude": "positives"})
    drawn, pairs = set(map(tuple, drawn.tolist())), pairs_of(recommender, recommender.model.learning.labels)
    assert not drawn & pairs["positive"]
    assert drawn & pairs["neutral"] and drawn & pairs["negative"]


@pytest.mark.parametrize("features", [{}, HISTORY, ITEM_SET], ids=["ids", "history", "set"])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_softmax_masks_what_the_user_had_except_explicit_negatives(monkeypatch, features, explicit):
    recommender, compared = record_negatives(
        monkeypatch, loss={"type": "full_softmax"}, explicit_negatives=explicit, **features
    )
    compared, pairs = set(map(tuple, compared.tolist())), pairs_of(recommender, recommender.model.learning.labels)
    assert not compared & (pairs["positive"] | pairs["neutral"])
    users = {user for user, _ in compared}
    disliked = {pair for pair in pairs["negative"] - pairs["positive"] - pairs["neutral"] if pair[0] in users}
    assert disliked and (disliked <= compared if explicit else not disliked & compared)


@pytest.mark.parametrize("changes", [{}, HISTORY, {"interaction": {"type": "mlp"}}], ids=["ids", "history", "mlp"])
def test_hard_negatives_are_among_the_best_of_the_present_model(monkeypatch, changes):
    """With new vectors at each step, the lists are exactly those of the network before the step."""
    make, checked = loop.make_objective, []

    def watched(*args):
        objective = make(*args)
        of, draw = objective.top.of, objective.sampler.sample_top
        seen = []

        def compare(batch):
            best, there = of(batch)
            seen[:] = [batch, best, there]
            assert objective.model.training
            return best, there

        def check(best, there, ratio, generator):
            if "features" not in changes:
                expected = reference(objective, seen[0])
                scores = expected.gather(1, best)[there]
                assert torch.allclose(scores, expected.topk(best.shape[1], 1).values[there], atol=1e-5)
            drawn = draw(best, there, ratio, generator)
            assert ((drawn.items[:, :, None] == best[:, None]).any(-1)).all()
            checked.append(len(drawn.items))
            return drawn

        objective.top.of, objective.sampler.sample_top = compare, check
        return objective

    monkeypatch.setattr(loop, "make_objective", watched)
    negatives = {"type": "hard", "top": 6, "refresh": 1}
    Recommender.from_config(small_config(negatives=negatives, **changes)).fit(small_dataset(), progress=False)
    assert checked


def reference(objective, batch):
    """(positives, items) the scores of all items, -inf at the training items of the user, one pair at a time."""
    model, data = objective.model, objective.data
    model.eval()
    with torch.no_grad():
        users = model.represent("user", data.users, data.samples.users[batch.rows])
        items = model.represent("item", data.items, torch.arange(data.num_items))
        scores = model.score(users, items)
    model.train()
    had = objective.positives.contains(data.samples.users[batch.rows], torch.arange(data.num_items))
    return scores.masked_fill(had, -torch.inf)


def test_the_vectors_of_hard_negatives_are_kept_for_the_set_number_of_steps(monkeypatch):
    make, kept = loop.make_objective, []

    def watched(*args):
        objective = make(*args)
        of = objective.top.of

        def noted(batch):
            lists = of(batch)
            kept.append(objective.top._items)
            return lists

        objective.top.of = noted
        return objective

    monkeypatch.setattr(loop, "make_objective", watched)
    training = {"epochs": 2, "batch_size": 64, "patience": None}
    config = small_config(negatives={"type": "hard", "refresh": 3}, training=training)
    Recommender.from_config(config).fit(small_dataset(), progress=False)
    steps = len(kept) // 2
    assert steps > 3
    changes = [n for n in range(len(kept)) if n == 0 or kept[n] is not kept[n - 1]]
    assert changes == [
        start + step for start in (0, steps) for step in range(0, steps, 3)
    ]  # from the start of each epoch


def test_a_user_who_has_nearly_all_items_gets_fewer_hard_negatives():
    positives = Positives(*torch.ones(2, 5).nonzero(as_tuple=True), 2, 6)
    cls = REGISTRY.get("sampler", "hard")
    best, there = torch.tensor([[5, 0, 1], [3, 2, 4]]), torch.tensor([[True, False, False], [True, True, True]])
    drawn = cls(positives, cls.Params(top=3)).sample_top(best, there, 2, torch.Generator().manual_seed(0))
    assert drawn.valid.tolist() == [[True, False], [True, True]] and int(drawn.items[0, 0]) == 5
    assert len(set(drawn.items[1].tolist())) == 2


def test_the_former_name_of_the_size_of_hard_negatives_still_works():
    found = REGISTRY.params("sampler", "hard", {"pool": 7})
    assert found.top == 7


def test_an_unknown_exclusion_is_an_error():
    with pytest.raises(ConfigError, match="interacted"):
        Recommender.from_config(small_config(negatives={"exclude": "viewed"}))


def test_in_training_no_item_of_a_later_part_is_excluded(monkeypatch):
    """Held-out items can be negatives: excluding them would tell the model which they are."""
    recommender, drawn = record_negatives(
        monkeypatch, negatives={"type": "uniform"}, split={"protocol": "leave_last_out"}
    )
    data, split = recommender.dataset, recommender.split
    held = np.concatenate([split.validation, split.test])
    pairs = set(zip(data.user_rows[held].tolist(), data.item_rows[held].tolist(), strict=True))
    assert pairs & set(map(tuple, drawn.tolist()))
