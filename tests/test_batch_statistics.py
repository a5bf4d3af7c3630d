"""Several processes refuse batch normalisation that learns: each would see the statistics of its own rows only."""

import pytest
import torch
from small import small_dataset
from torch import nn

from anyrec import ItemTower, TwoTower, UserTower
from anyrec.core.context import Context
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.processes import ALONE, Processes
from anyrec.core.ragged import Ragged
from anyrec.encoders.image import Torchvision
from anyrec.training.batch_statistics import batch_statistics_refused
from tests.test_distributed import trained

TWO = Processes(0, 2)
PLUGIN = """
import torch
from torch import nn

from anyrec import Encoder, Prepared


class Normal(Encoder):
    '''Batch normalisation.'''

    type = "normal"
    group = "continuous"

    def prepare(self, column):
        values = torch.tensor(column.fill_null(0).to_pylist(), dtype=torch.float32)[:, None]
        return Prepared(values, torch.ones(len(values), dtype=torch.bool))

    def build(self):
        self.net = nn.Sequential(nn.Linear(1, self.output_dim), nn.BatchNorm1d(self.output_dim))

    def forward(self, values):
        return self.net(values.to(self.net[0].weight.dtype))
"""


class Normalised(nn.Module):
    def __init__(self, norm: nn.Module, fixed: bool = False):
        super().__init__()
        self.norm, self.fixed = norm, fixed

    def forward(self, values):
        if self.fixed:
            self.norm.eval()
        return self.norm(values)


def used(module: nn.Module, values: torch.Tensor, processes: Processes, training: bool = True):
    """Return what a module of a tower computes in a training by some processes."""
    items = ItemTower({"identity.id": 4, "audio.clip": module}, dim=8)
    model = TwoTower(UserTower({"identity.id": 4}, dim=8), items).train(training)
    with batch_statistics_refused(model, processes):
        return module(values)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False)])
def test_batch_normalisation_that_learns_is_refused_by_several_processes(norm):
    with pytest.raises(ConfigError, match=r"item feature 'audio.clip', module 'norm': BatchNorm1d .* nn.LayerNorm"):
        used(Normalised(norm), torch.randn(4, 8), TWO)
    assert used(Normalised(norm), torch.randn(4, 8), ALONE).shape == (4, 8)


def test_fixed_statistics_and_other_normalisations_are_used():
    values = torch.randn(4, 8)
    for module in (Normalised(nn.BatchNorm1d(8), fixed=True), Normalised(nn.LayerNorm(8))):
        assert used(module, values, TWO).shape == (4, 8)
    assert used(Normalised(nn.BatchNorm1d(8)), values, TWO, training=False).shape == (4, 8)
    backbone = Torchvision(Torchvision.Params(model="shufflenet_v2_x0_5", weights=None, frozen=False, size=32), 8)
    backbone.context = Context()
    backbone.build()
    assert any(isinstance(one, nn.BatchNorm2d) for one in backbone.modules())
    pictures = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert used(backbone, Ragged(pictures, torch.arange(5)), TWO).shape == (4, 8)


def test_a_training_of_several_processes_says_which_plugin_normalises_batches(tmp_path):
    (tmp_path / "normal.py").write_text(PLUGIN)
    with pytest.raises(ConfigError, match=r"(user|item) feature 'continuous\.\w+', module 'net.1': BatchNorm1d"):
        trained({"features": {"continuous": {"type": "normal"}}}, TWO, small_dataset(), discover([str(tmp_path)]))
