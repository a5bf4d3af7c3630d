"""Every built-in component passes the conformance checks, and the checks find the faults of others."""

import pyarrow as pa
import pytest
import torch
from torch import nn

from anyrec.core.contracts import Context, Encoder, Fusion
from anyrec.core.discovery import discover
from anyrec.core.ragged import Prepared
from anyrec.testing import ConformanceError, check_encoder, check_fusion

REGISTRY = discover()
PLAIN = [
    p.type
    for p in REGISTRY.plugins("encoder")
    if p.group not in ("image", "audio") and p.type not in ("sentence", "clip_text")
]
VARIANTS = [
    *((name, {}) for name in PLAIN),
    ("continuous", {"encoding": "periodic"}),
    ("continuous", {"encoding": "linear"}),
    ("sequence", {"pooling": "gru"}),
    ("sequence", {"pooling": "transformer", "max_length": 3}),
    ("categorical", {"hash_buckets": 50}),
    ("categorical", {"min_count": 15, "max_categories": 1}),
    ("history", {"variant": "pre_norm", "use_gap": True, "use_kind": True, "window": 3}),
    *(("history", {"block": block}) for block in ("bidirectional", "gru", "mean")),
    ("aggregates", {"half_life": 2.0, "top": 1, "same_time": "ordered"}),
    ("hashed", {"ngrams": 1, "min_count": 1}),
]


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=str)
def test_every_encoder_keeps_the_contract(name, params):
    check_encoder(REGISTRY.get("encoder", name), params=params)


@pytest.mark.parametrize("name", REGISTRY.names("fusion"))
def test_every_fusion_keeps_the_contract(name):
    check_fusion(REGISTRY.get("fusion", name), features=1 if name == "identity" else 3)


@pytest.mark.parametrize("name", REGISTRY.names("fusion"))
def test_every_fusion_takes_a_single_feature(name):
    check_fusion(REGISTRY.get("fusion", name), features=1)


def test_the_check_of_encoders_lists_all_violations():
    class Bad(Encoder):
        """Standardises by the batch, reads nulls as values, creates its layer too late."""

        type = "bad"
        group = "continuous"

        def prepare(self, column: pa.Array) -> Prepared:
            values = torch.tensor([[v if v is not None else float("nan")] for v in column.to_pylist()])
            return Prepared((values - values.nanmean()) / 10, torch.ones(len(column), dtype=torch.bool))

        def build(self) -> None:
            self.used = nn.Linear(1, self.output_dim)
            self.unused = nn.Linear(1, 1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "late"):
                self.late = nn.Linear(1, self.output_dim)
            return self.late(self.used(values).mean(1, keepdim=True)) + values.mean()

    with pytest.raises(ConformanceError) as error:
        check_encoder(Bad)
    message = str(error.value)
    for part in (
        "created in forward",
        "receives no gradient",
        "null counts as present",
        "not finite",
        "batch of one",
        "depends on the other",
    ):
        assert part in message


def test_the_check_of_fusions_finds_a_masked_value_in_the_output():
    class Leaky(Fusion):
        """Reads the features before they were filled."""

        type = "leaky"

        def forward(self, features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
            return features.sum(1)

    with pytest.raises(ConformanceError, match="changes the output"):
        check_fusion(Leaky)


def test_an_encoder_of_its_own_group_needs_an_example():
    class Strange(Encoder):
        """Reads a group for which the checks have no example."""

        type = "strange"

    with pytest.raises(ConformanceError, match="example"):
        check_encoder(Strange, context=Context())
