"""`training.average_epochs` and `training.gradient_clip` equal their formulas, and averaged runs resume exactly."""

import pytest
import torch
from small import small_config, small_dataset
from torch import nn

from anyrec.recommender import Recommender
from anyrec.training import loop
from anyrec.training.optimizers import Optimizer
from anyrec.training.weight_average import EARLY, Average

BATCH = 64


def fit(run_dir=None, resume=False, **training):
    """A small model, trained without a validation part, so that it ends with the last or the averaged weights."""
    config = small_config(
        split={"protocol": "random", "validation": 0.0, "test": 0.1},
        negatives={"type": "in_batch", "block": 16},
        training={"epochs": 3, "batch_size": BATCH, "patience": None, **training},
    )
    return Recommender.from_config(config).fit(small_dataset(), progress=False, run_dir=run_dir, resume=resume)


@pytest.fixture
def trained(monkeypatch):
    """Call with options of `training`: the model, its weights at first, and the gradients and weights of every step."""

    class Recorder(Optimizer):
        def __init__(self, model, config):
            super().__init__(model, config)
            self.model, self.first = model, weights_of(model)
            self.gradients, self.weights = [], []
            recorders.append(self)

        def step(self):
            parameters = self.model.named_parameters()
            self.gradients.append({name: one.grad.to_dense() for name, one in parameters if one.grad is not None})
            super().step()
            self.weights.append(weights_of(self.model))

    recorders = []
    monkeypatch.setattr(loop, "Optimizer", Recorder)

    def run(**training):
        model = fit(**training).model.scorer
        return model, recorders[-1]

    return run


def weights_of(model):
    return {name: one.detach().clone() for name, one in model.named_parameters()}


def averaged(weights, first, steps):
    """The moving average of `weights`, one after each step, by its formula in float64."""
    average = first.double()
    for step, value in enumerate(weights, start=1):
        decay = min(1 - 1 / max(1.0, steps), (step + 1) / (step + 1 + EARLY))
        average = decay * average + (1 - decay) * value.double()
    return average


def norm_of(gradients):
    return torch.sqrt(sum(one.double().square().sum() for one in gradients.values()))


@pytest.mark.parametrize("steps", [0.5, 3, 25])
def test_the_average_is_the_exponential_moving_average_of_the_weights(steps):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    first, average, weights = model.weight.detach().clone(), Average(model, steps), []
    for step in range(1, 61):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        weights.append(model.weight.detach().clone())
        average.update(step)
    assert list(average.values) == ["weight"]  # parameters that are not trained have no average
    assert torch.allclose(average.values["weight"].double(), averaged(weights, first, steps), atol=1e-5)
    assert torch.equal(model.weight, weights[-1])


def test_within_a_block_the_model_has_the_averaged_weights_and_after_it_its_own():
    model = nn.Linear(3, 2)
    average, own = Average(model, 10), model.weight.detach() + 1.0
    with torch.no_grad():
        model.weight.copy_(own)
    with average.in_place():
        assert torch.equal(model.weight, average.values["weight"]) and not torch.equal(model.weight, own)
    assert torch.equal(model.weight, own)
    with pytest.raises(RuntimeError), average.in_place():
        raise RuntimeError
    assert torch.equal(model.weight, own)


def test_training_with_average_epochs_ends_with_the_average_of_its_steps(trained):
    model, record = trained(average_epochs=2, epochs=3)
    steps = len(record.weights) // 3
    assert steps > 3
    for name, value in model.named_parameters():
        expected = averaged([weights[name] for weights in record.weights], record.first[name], 2 * steps)
        assert torch.allclose(value.double(), expected, atol=1e-5), name
        assert not torch.equal(value, record.weights[-1][name]), name


def test_a_resumed_run_with_average_epochs_ends_bitwise_as_an_uninterrupted_one(tmp_path):
    whole = fit(run_dir=tmp_path / "whole", average_epochs=2, epochs=4)
    fit(run_dir=tmp_path / "half", average_epochs=2, epochs=2)
    resumed = fit(run_dir=tmp_path / "half", resume=True, average_epochs=2, epochs=4)
    assert len(resumed.result.history) == 4
    for name, value in whole.model.scorer.state_dict().items():
        assert torch.equal(value, resumed.model.scorer.state_dict()[name]), name


@pytest.mark.parametrize("sparse", [False, True])
def test_gradient_clip_scales_longer_gradients_down_to_its_norm(trained, sparse):
    free = trained(epochs=1, optimizer={"sparse": sparse})[1].gradients
    clipped = trained(epochs=1, optimizer={"sparse": sparse}, gradient_clip=0.01)[1].gradients
    assert len(clipped) == len(free) > 3
    assert min(norm_of(gradients) for gradients in free) > 0.02
    assert [norm_of(gradients).item() for gradients in clipped] == [pytest.approx(0.01, rel=1e-3)] * len(clipped)
    factor = 0.01 / norm_of(free[0])  # the first steps have the same weights and the same batch
    for name, gradient in free[0].items():
        assert torch.allclose(clipped[0][name], (gradient * factor).float(), rtol=1e-3, atol=1e-9), name


def test_gradient_clip_leaves_shorter_gradients_unchanged(trained):
    free, clipped = (trained(epochs=1, **options)[1].gradients for options in ({}, {"gradient_clip": 1e6}))
    for before, after in zip(free, clipped, strict=True):
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
