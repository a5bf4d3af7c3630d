"""Losses against float64 loops, and the sampled softmax against the full one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config

REGISTRY = discover()


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def mean(values):
    return sum(values) / len(values) if values else 0.0


def gbce(p, ns, count, items=50, t=0.75):
    alpha = count / (items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    return beta * softplus(-p) + sum(softplus(n) for n in ns)


REFERENCE = {
    "bce": lambda p, ns, _: softplus(-p) + mean([softplus(n) for n in ns]),
    "bpr": lambda p, ns, _: mean([softplus(n - p) for n in ns]),
    "softmax": lambda p, ns, _: -p + math.log(sum(math.exp(x) for x in [p, *ns])),
    "infonce": lambda p, ns, _: -p + math.log(sum(math.exp(x) for x in [p, *ns])),
    "full_softmax": lambda p, ns, _: -p + math.log(sum(math.exp(x) for x in [p, *ns])),
    "triplet": lambda p, ns, _: mean([max(0.0, 1 - p + n) for n in ns]),
    "contrastive": lambda p, ns, _: (max(0.0, 1 - p) ** 2 + mean([max(0.0, 1 + n) ** 2 for n in ns])) / 2,
    "focal": lambda p, ns, _: softplus(-p) * sigmoid(-p) ** 2 + mean([softplus(n) * sigmoid(n) ** 2 for n in ns]),
    "gbce": gbce,
}
REFERENCE["combined"] = lambda p, ns, c: REFERENCE["bce"](p, ns, c) + 0.5 * REFERENCE["contrastive"](p, ns, c)


def make(name):
    loss = REGISTRY.get("loss", name)()
    loss.build(REGISTRY)
    loss.num_items = 50
    return loss


def test_every_loss_has_a_reference():
    assert set(REFERENCE) == set(REGISTRY.names("loss"))


@pytest.mark.parametrize("name", sorted(REFERENCE))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), masked=st.booleans(), weighted=st.booleans())
def test_a_loss_equals_its_definition_in_float64(name, seed, masked, weighted):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(0, 3, 6), rng.normal(0, 3, (6, 5))
    valid = rng.random((6, 5)) > 0.4 if masked else np.ones((6, 5), bool)
    weight = rng.random(6) + 0.1 if weighted else np.ones(6)
    found = make(name)(
        torch.tensor(positive),
        torch.tensor(negative),
        torch.tensor(valid) if masked else None,
        torch.tensor(weight) if weighted else None,
    )
    rows = [
        REFERENCE[name](p, [n for n, v in zip(ns, vs, strict=True) if v], 5)
        for p, ns, vs in zip(positive, negative, valid, strict=True)
    ]
    assert found.item() == pytest.approx(float((np.array(rows) * weight).sum() / weight.sum()), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_the_gradient_equals_finite_differences_and_is_finite_for_extreme_scores(name):
    loss = make(name)
    torch.manual_seed(3)
    positive = torch.randn(4, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[True, True, False]] * 3 + [[False] * 3])
    assert torch.autograd.gradcheck(lambda p, n: loss(p, n, valid, None), (positive, negative), eps=1e-6, atol=1e-5)
    far = torch.tensor([1e4, -1e4, 0.0, 50.0], requires_grad=True)
    loss(far, -far.unsqueeze(1).expand(4, 3), valid, None).backward()
    assert far.grad.isfinite().all()


def test_the_sampled_softmax_tends_to_the_full_one_as_negatives_grow():
    """Checks the sign of the logQ correction: with the wrong sign or none, popular items get too low scores."""
    generator = torch.Generator().manual_seed(0)
    items, dim = 200, 6
    table, user = torch.randn(items, dim, generator=generator), torch.randn(1, dim, generator=generator)
    q = torch.softmax(torch.randn(items, generator=generator), 0)
    target = 7
    softmax, full = make("softmax"), make("full_softmax")

    def gradient(count, sign):
        vector = user.clone().requires_grad_()
        scores = vector @ table.T
        if count is None:
            valid = torch.ones(1, items, dtype=torch.bool)
            valid[0, target] = False
            loss = full(scores[:, target], scores, valid, None)
        else:
            drawn = torch.multinomial(q, count, True, generator=generator)
            corrected = scores[:, drawn] - sign * (count * q[drawn]).log()
            loss = softmax(scores[:, target], corrected, (drawn != target).unsqueeze(0), None)
        loss.backward()
        return vector.grad

    exact = gradient(None, 1)
    errors = [(gradient(count, 1) - exact).norm().item() for count in (20, 500, 100_000)]
    assert errors[2] < 0.05 * exact.norm()
    assert errors[2] < errors[0]
    for wrong in (0, -1):
        assert (gradient(100_000, wrong) - exact).norm() > 5 * errors[2]


def test_an_unknown_part_of_a_combined_loss_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"/loss/parts/0/type: there is no loss 'bprr'.*'bpr'"):
        load_config({"loss": {"type": "combined", "parts": {"bprr": 1.0}}}, registry=REGISTRY)
    with pytest.raises(ConfigError, match="/loss/parts/1/gama") as caught:
        parts = [{"type": "bprr"}, {"type": "focal", "gama": 1.0}]
        load_config({"loss": {"type": "combined", "parts": parts}}, registry=REGISTRY)
    assert len(caught.value.faults) == 2


def combined(parts):
    loss = REGISTRY.get("loss", "combined")(REGISTRY.params("loss", "combined", {"parts": parts}))
    loss.build(REGISTRY)
    loss.num_items = 50
    return loss


def test_the_parts_of_a_combined_loss_have_their_own_options():
    positive, negative = torch.tensor([0.3, 2.0]), torch.tensor([[0.1, -1.0, 0.7], [0.5, 1.5, -0.2]])
    valid = torch.tensor([[True, False, True], [True, True, True]])

    def single(name, **options):
        loss = REGISTRY.get("loss", name)(REGISTRY.params("loss", name, options))
        loss.num_items = 50
        return loss

    softmax = single("softmax", temperature=0.5)
    expected = 2.0 * single("focal", gamma=1.0)(positive, negative, valid, None)
    expected = expected + 0.5 * single("gbce", t=0.3)(positive, negative, valid, None)
    expected = expected + softmax(positive / 0.5, negative / 0.5, valid, None)
    parts = [
        {"type": "focal", "weight": 2.0, "gamma": 1.0},
        {"type": "gbce", "weight": 0.5, "t": 0.3},
        {"type": "softmax", "temperature": 0.5},
    ]
    found = combined(parts)(positive, negative, valid, None)
    assert torch.allclose(found, expected)
    by_name = {one["type"]: {key: one[key] for key in one if key != "type"} for one in parts}
    assert torch.equal(combined(by_name)(positive, negative, valid, None), found)
    weights = {"bce": 1.0, "contrastive": 0.5}
    usual = REGISTRY.get("loss", "combined")()
    usual.build(REGISTRY)
    assert torch.equal(combined(weights)(positive, negative, valid, None), usual(positive, negative, valid, None))


def test_a_combined_loss_compares_with_all_items_if_a_part_does():
    assert combined([{"type": "full_softmax"}, {"type": "bce"}]).all_items
    assert not combined([{"type": "bce"}]).all_items and not REGISTRY.get("loss", "combined").all_items


def test_a_loss_of_a_plugin_can_be_a_part(tmp_path):
    (tmp_path / "hinge.py").write_text(HINGE)
    registry = discover([tmp_path])
    loss = registry.get("loss", "combined")(registry.params("loss", "combined", {"parts": {"hinge": {"gap": 2.0}}}))
    loss.build(registry)
    found = loss(torch.tensor([1.0]), torch.tensor([[0.5]]), None, None)
    assert float(found) == pytest.approx(1.5)


HINGE = """
from pydantic import Field
from anyrec import Loss, Params

class Hinge(Loss):
    "Hinge."

    type = "hinge"

    class Params(Params):
        gap: float = Field(1.0, ge=0, le=10, description="Gap.")

    def forward(self, positive, negative, valid, weight):
        return (self.params.gap - positive.unsqueeze(1) + negative).relu().sum(1).mean()
"""
