"""Training in bf16, which `precision: auto` chooses on processors that multiply it natively."""

import pytest
import torch
from small import small_config, small_dataset

from anyrec.core.discovery import discover
from anyrec.recommender import Recommender

HISTORY = {"features": {"history": {"window": 5, "layers": 1}}, "user": {"features": {"identity": None}}}


@pytest.mark.parametrize("loss", [name for name in discover().names("loss") if name != "combined"])
@pytest.mark.parametrize("more", [{}, HISTORY], ids=["ids", "history"])
def test_every_loss_trains_in_bf16(loss, more):
    config = small_config(loss={"type": loss}, training={"epochs": 1, "batch_size": 128, "precision": "bf16"}, **more)
    fitted = Recommender.from_config(config).fit(small_dataset(users=20), progress=False)
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in fitted.model.scorer.parameters())
    assert 0 < fitted.metrics["validation"]["ndcg@10"] <= 1
