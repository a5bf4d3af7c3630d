"""adaptive_mimic: content alone represents an unknown id, and is trained to imitate the ids that are known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config, small_dataset

from anyrec.core.discovery import discover
from anyrec.recommender import Recommender
from anyrec.testing import check_fusion

MIMIC = discover().get("fusion", "adaptive_mimic")
NAMES = ["categorical.tags", "identity.id", "text.title"]


def make(names=NAMES, dim=8, out=8, **params):
    torch.manual_seed(0)
    fusion = MIMIC(names, dim, out, MIMIC.Params(**params))
    with torch.no_grad():
        for value in fusion.parameters():
            value.add_(torch.randn_like(value) * 0.3)  # away from the first values, so that every part speaks
    return fusion


def draw(seed, rows=6, features=3, dim=8):
    torch.manual_seed(seed)
    return torch.randn(rows, features, dim), torch.rand(rows, features) > 0.4


@pytest.mark.parametrize("out", [8, 5])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_without_an_id_the_output_depends_on_content_alone(out, seed):
    features, present = draw(seed)
    present[:, 1], present[:, 0] = False, True
    fusion = make(out=out).eval()
    before = fusion(features, present)
    assert torch.equal(before, fusion.content_vector(fusion.fill(features, present)[:, [0, 2]]))
    with torch.no_grad():
        for value in (fusion.missing[1], fusion.gate.weight, fusion.gate.bias):
            value.add_(7.0)
    assert torch.equal(fusion(features, present), before)


@pytest.mark.parametrize("out", [8, 5])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_without_any_content_the_output_is_the_id(out, seed):
    features, present = draw(seed)
    present[:] = torch.tensor([False, True, False])
    fusion = make(out=out).eval()
    assert torch.equal(fusion(features, present), fusion.resize(features[:, 1]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_both_each_value_lies_between_that_of_the_id_and_that_of_the_content(seed):
    features, _ = draw(seed)
    present = torch.ones(6, 3, dtype=torch.bool)
    fusion = make().eval()
    output, e, c = fusion(features, present), features[:, 1], fusion.content_vector(features[:, [0, 2]])
    assert (output >= torch.minimum(e, c) - 1e-5).all()
    assert (output <= torch.maximum(e, c) + 1e-5).all()
    assert not torch.allclose(output, e)
    assert not torch.allclose(output, c)


def test_without_id_and_content_the_output_is_learned_and_the_same_for_all_records():
    fusion = make()
    output = fusion(torch.full((4, 3, 8), float("nan")), torch.zeros(4, 3, dtype=torch.bool))
    assert torch.isfinite(output).all()
    output.square().sum().backward()
    assert (fusion.missing.grad.abs().sum(1) > 0).all()


def test_the_penalty_pulls_content_towards_the_id_and_leaves_the_id_alone():
    fusion = make(dropout=0.0, mimic=1.0).train()
    features, present = draw(0, rows=64)
    features.requires_grad_()
    rate, losses = torch.optim.Adam(fusion.parameters(), 0.02), []
    for _ in range(60):
        fusion(features, present)
        penalty = fusion.take_penalty()
        rate.zero_grad()
        penalty.backward()
        rate.step()
        losses.append(float(penalty.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert features.grad[:, 1].abs().sum() == 0, "the id is not to be pulled towards the content"


def test_the_penalty_counts_only_rows_that_have_both_id_and_content():
    fusion = make(dropout=0.0, mimic=2.0).train()
    features, present = draw(3, rows=50)
    both = present[:, 1] & present[:, [0, 2]].any(1)
    fusion(features, present)
    e, c = features[both][:, 1], fusion.content_vector(fusion.fill(features, present)[both][:, [0, 2]])
    cosines = (c * e).sum(1) / (c.norm(dim=1) * e.norm(dim=1))
    assert torch.isclose(fusion.take_penalty(), 2 * (1 - cosines.mean()))
    fusion(features, torch.zeros_like(present))
    assert fusion.take_penalty() == 0.0


def test_there_is_no_penalty_in_evaluation_or_with_weight_zero_and_it_is_taken_once():
    features, present = draw(1)
    fusion = make()
    fusion.eval()(features, present)
    assert fusion.take_penalty() == 0.0
    fusion.train()(features, present)
    assert fusion.take_penalty() > 0
    assert fusion.take_penalty() == 0.0
    fusion = make(mimic=0.0).train()
    fusion(features, present)
    assert fusion.take_penalty() == 0.0


@pytest.mark.parametrize("names", [["identity.id"], ["text.title"], ["text.title", "categorical.tags"], NAMES])
def test_towers_without_an_id_or_with_only_an_id_work(names):
    fusion = make(names, out=5)
    features, present = torch.randn(4, len(names), 8), torch.ones(4, len(names), dtype=torch.bool)
    assert fusion(features, present).shape == (4, 5)
    if names == ["identity.id"]:
        assert torch.equal(fusion(features, present), fusion.resize(features[:, 0]))
    check_fusion(lambda _, *rest: MIMIC(names, *rest), features=len(names))


def test_training_adds_the_penalty_to_the_loss():
    def fit(mimic):
        config = small_config(fusion={"type": "adaptive_mimic", "mimic": mimic}, features={"text": None}, dim=16)
        return Recommender.from_config(config).fit(small_dataset(), progress=False)

    def likeness(recommender):
        """The mean cosine of content and id."""
        tower, columns = recommender.model.scorer.item.eval(), recommender.model.columns["item"]
        with torch.no_grad():
            features, present = tower.tokens(columns, torch.arange(len(recommender.dataset.items)))
            fusion = tower.fusion
            e, c = features[:, fusion.id], fusion.content_vector(fusion.fill(features, present)[:, fusion.content])
        return float(torch.cosine_similarity(c, e)[present[:, fusion.id]].mean())

    plain, pulled = fit(0.0), fit(5.0)
    assert pulled.result.history[0]["loss"] > plain.result.history[0]["loss"]
    assert likeness(pulled) > likeness(plain) + 0.1
    assert pulled.model.scorer.item.fusion.penalty is None
