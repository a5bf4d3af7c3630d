"""A plain torch module is saved by its structure and restored without pickle."""

import json

import pyarrow as pa
import pytest
import torch
from torch import nn

from anyrec.core.errors import ConfigError
from anyrec.model.custom_modules import describe, encoder_of, numbers, rebuild


class TwoLayers(nn.Module):
    """Keeps none of its arguments: only its structure tells how it was made."""

    def __init__(self, width, out):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.1))
        self.out = nn.Linear(8, out, bias=False)
        self.scale = 2.0

    def forward(self, values):
        return self.out(self.inner(values)) * self.scale


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 5, batch_first=True)

    def forward(self, values):
        return self.gru(values.unsqueeze(-1))[1][0]


@pytest.mark.parametrize("module", [TwoLayers(6, 3), Recurrent(), nn.Sequential(nn.BatchNorm1d(6), nn.GELU())])
def test_a_module_rebuilt_from_its_description_computes_the_same(module):
    module.eval()
    again = rebuild(json.loads(json.dumps(describe(module, "custom"))))
    again.load_state_dict(module.state_dict())
    again.eval()
    values = torch.randn(4, 6)
    assert torch.equal(module(values), again(values))


def test_a_module_that_cannot_be_found_again_is_refused_at_once():
    class Local(nn.Module):
        pass

    with pytest.raises(ConfigError, match="no import path"):
        encoder_of("custom", Local())
    odd = nn.Linear(2, 2)
    odd.thing = object()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="cannot be saved"):
        encoder_of("custom", odd)


def test_numbers_of_another_length_or_not_finite_are_absent():
    made = numbers(pa.array([[1.0, 2.0], None, [1.0], [float("nan"), 1.0]]), 2)
    assert made.present.tolist() == [True, False, False, False]
    assert made.values.isfinite().all()
    assert numbers(pa.array([1.5, None]), 1).values.tolist() == [[1.5], [0.0]]
