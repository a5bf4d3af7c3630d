"""Fusions: the value of a masked feature cannot change the output."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError

REGISTRY = discover()
NAMES = REGISTRY.names("fusion")


def make(name, features=4, dim=8, out=8):
    torch.manual_seed(0)
    return REGISTRY.get("fusion", name)([f"f{n}" for n in range(features)], dim, out)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_masked_feature_cannot_change_the_output_nor_the_gradient(name, data):
    fusion = make(name).eval()
    seed = data.draw(st.integers(0, 10_000))
    junk = data.draw(st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e38, 0.0]))
    torch.manual_seed(seed)
    present = torch.rand(5, 4) > data.draw(st.floats(0, 1))
    clean = torch.randn(5, 4, 8)
    dirty = torch.where(present.unsqueeze(-1), clean, junk)
    assert torch.equal(fusion(clean, present), fusion(dirty, present))
    fusion(dirty.requires_grad_(), present).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_a_record_without_any_feature_has_a_finite_vector_that_is_trained(name):
    fusion = make(name)
    output = fusion(torch.full((3, 4, 8), float("nan")), torch.zeros(3, 4, dtype=torch.bool))
    assert output.isfinite().all()
    output.square().sum().backward()
    assert fusion.missing.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_the_result_does_not_depend_on_the_batch(name):
    fusion = make(name).eval()
    features, present = torch.randn(1000, 4, 8), torch.rand(1000, 4) > 0.3
    together = fusion(features, present)
    for row in (0, 500, 999):
        assert torch.allclose(fusion(features[row : row + 1], present[row : row + 1])[0], together[row], atol=1e-5)


@pytest.mark.parametrize("name", ["attention", "bilinear", "gated", "residual", "simple", "sum", "weighted", "concat"])
def test_the_order_of_the_features_does_not_matter_when_their_parameters_move_with_them(name):
    """With parameters that are the same for every feature, permuting the features leaves the output."""
    fusion = make(name).eval()
    with torch.no_grad():
        for key, value in fusion.named_parameters():
            if key in ("missing", "feature_names", "weights", "lower"):
                value.copy_(value[:1].expand_as(value))
            elif value.dim() == 2 and value.shape[1] == 32:
                block = value[:, :8].repeat(1, 4)
                value.copy_(block[:8].repeat(4, 1) if value.shape[0] == 32 else block)
            elif key == "gate.bias":
                value.copy_(value[:8].repeat(4))
    features, present = torch.randn(6, 4, 8), torch.rand(6, 4) > 0.3
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(fusion(features, present), fusion(features[:, order], present[:, order]), atol=1e-5)


@pytest.mark.parametrize("own", ["identity.id", "history"])
def test_residual_begins_as_the_records_own_vector_plus_little_of_the_rest(own):
    cls = REGISTRY.get("fusion", "residual")
    fusion = cls(["categorical.genre", own, "text.title"], 8, 8, cls.Params(start=0.03))
    features = torch.randn(5, 3, 8)
    expected = features[:, 1] + 0.03 * (features[:, 0] + features[:, 2])
    assert torch.allclose(fusion(features, torch.ones(5, 3, dtype=torch.bool)), expected, atol=1e-6)


def test_the_part_that_residual_adds_is_learned_at_the_speed_of_its_scale():
    """A step that moves every parameter equally moves the other features' part by `start` times the own part's."""
    cls = REGISTRY.get("fusion", "residual")
    fusion = cls(["identity.id", "text.title"], 8, 8, cls.Params(start=0.03))
    optimizer = torch.optim.Adam(fusion.parameters(), lr=0.1)
    there = torch.ones(1, 2, dtype=torch.bool)

    def shares():
        return torch.stack([fusion(torch.eye(2)[n].view(1, 2, 1).expand(1, 2, 8), there)[0] for n in range(2)])

    before = shares().detach()
    shares().sum().backward()
    optimizer.step()
    moved = (shares() - before).abs()
    assert torch.allclose(moved[1], 0.03 * moved[0], rtol=1e-3) and moved.min() > 0


def test_identity_refuses_several_features():
    with pytest.raises(ConfigError, match="there are 4: f0, f1, f2, f3"):
        make("identity")


def test_attention_refuses_heads_that_do_not_divide_the_dimension():
    cls = REGISTRY.get("fusion", "attention")
    with pytest.raises(ConfigError, match="3 heads do not divide 8"):
        cls(["a"], 8, 8, cls.Params(num_heads=3))
