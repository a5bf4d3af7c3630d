"""The best and the last checkpoint, gradient clipping, and sparse gradients of single features."""

import json

import pytest
import torch
from small import small_config, small_dataset
from torch import nn

from anyrec.core.config import OptimizerConfig
from anyrec.core.errors import ConfigError, ModelError
from anyrec.recommender import Recommender
from anyrec.training.optimizers import Optimizer


def fit(run_dir=None, resume=False, **changes):
    config = small_config(**changes)
    return Recommender.from_config(config).fit(small_dataset(), run_dir=run_dir, resume=resume, progress=False)


def training(**options):
    return {"epochs": 4, "batch_size": 64, "patience": None, **options}


def same(first, second):
    one, two = first.model.scorer.state_dict(), second.model.scorer.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


def weights_of(file):
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.parametrize("average", [0, 1.5])
def test_the_best_checkpoint_is_the_model_of_the_best_epoch_and_the_last_one_has_no_copy_of_it(tmp_path, average):
    options = training(epochs=6, optimizer={"learning_rate": 0.05}, average_epochs=average)
    fitted = fit(training=options, run_dir=tmp_path)
    best, last = (weights_of(tmp_path / "checkpoints" / f"{name}.safetensors") for name in ("best", "last"))
    state = fitted.model.scorer.state_dict()
    assert best.keys() == state.keys() and all(torch.equal(best[name], state[name]) for name in best)
    assert not [name for name in last if name.startswith("best.")]
    assert {name.removeprefix("model.") for name in last if name.startswith("model.")} == state.keys()


@pytest.mark.parametrize("average", [0, 1.5])
def test_a_run_stopped_between_the_last_and_the_best_checkpoint_resumes_exactly(tmp_path, average, monkeypatch):
    from anyrec.training.checkpoints import Checkpoints

    options = training(epochs=4, average_epochs=average)
    whole = fit(training=options)
    write = Checkpoints._save_best

    def stopped(checkpoints, best, progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt
        write(checkpoints, best, progress)

    monkeypatch.setattr(Checkpoints, "_save_best", stopped)
    history = [entry["validation"]["ndcg@10"] for entry in whole.result.history]
    assert history[1] > history[0], "the second epoch is the best so far, so that the run stops there"
    with pytest.raises(KeyboardInterrupt):
        fit(training=options, run_dir=tmp_path)
    monkeypatch.setattr(Checkpoints, "_save_best", write)
    resumed = fit(training=options, run_dir=tmp_path, resume=True)
    assert same(whole, resumed)
    best = weights_of(tmp_path / "checkpoints" / "best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in whole.model.scorer.state_dict().items())


def test_a_missing_or_damaged_best_checkpoint_is_refused(tmp_path):
    options = training(evaluate_every=2)

    def stop(entry):
        if entry["epoch"] == 3:  # which is not validated, so that the second one is the best
            raise KeyboardInterrupt

    recommender = Recommender.from_config(small_config(training=options))
    with pytest.raises(KeyboardInterrupt):
        recommender.fit(small_dataset(), run_dir=tmp_path, progress=False, report=stop)
    folder = tmp_path / "checkpoints"
    progress = json.loads(checkpoint_header(folder / "last.safetensors"))
    assert (progress["best_epoch"], progress["epoch"]) == (2, 3)
    kept = (folder / "best.safetensors").read_bytes()
    for content in (None, kept[:-8] + bytes(8), kept[:100]):
        (folder / "best.safetensors").unlink()
        if content is not None:
            (folder / "best.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"best\.safetensors: this checkpoint cannot be read"):
            fit(training=options, run_dir=tmp_path, resume=True)
        (folder / "best.safetensors").write_bytes(kept)
    assert same(fit(training=options), fit(training=options, run_dir=tmp_path, resume=True))


def checkpoint_header(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.metadata()["progress"]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_gradient_of_all_weights_is_clipped_to_the_norm_before_the_step(clip, sparse, monkeypatch):
    norms = []
    step = Optimizer.step

    def watched(self):
        gradients = [p.grad.to_dense() for part in self.parts for g in part.param_groups for p in g["params"]]
        norms.append(torch.cat([one.flatten() for one in gradients if one is not None]).norm().item())
        step(self)

    monkeypatch.setattr(Optimizer, "step", watched)
    optimizer = {"type": "sgd", "learning_rate": 0.1, "sparse": sparse}
    fit(training=training(epochs=1, gradient_clip=clip, optimizer=optimizer))
    assert max(norms) <= 1e-3 * (1 + 1e-4) if clip else min(norms) > 1e-3
    assert min(norms) == pytest.approx(1e-3, rel=1e-3) if clip else True


def test_a_clipped_step_has_the_direction_of_the_whole_gradient():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    start = [p.detach().clone() for p in model.parameters()]
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    model(rows).square().mean().backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    Optimizer(model, OptimizerConfig(type="sgd", learning_rate=1.0)).step()
    moved = torch.cat([(before - p.detach()).flatten() for before, p in zip(start, model.parameters(), strict=True)])
    torch.testing.assert_close(moved, whole / whole.norm() * 0.01, rtol=1e-4, atol=1e-7)


SPARSE = {
    "identity": {"identity": {"sparse": True}},
    "categorical": {"categorical": {"sparse": True}},
    "text": {"text": {"sparse": True}},
    "one field": {"text": {"fields": {"title": {"sparse": True}}}},
}


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_gradients_of_a_single_feature_are_refused_with_options_that_need_dense_ones(name):
    for options in ({"weight_decay": 0.1}, {"max_norm": 1.0}):
        with pytest.raises(ConfigError, match=r"sparse: sparse gradients cannot go with"):
            Recommender.from_config(small_config(features=SPARSE[name], training=training(optimizer=options)))


@pytest.mark.parametrize("name", SPARSE)
def test_only_the_tables_of_a_sparse_feature_have_sparse_gradients(name):
    fitted = fit(features=SPARSE[name], training=training(epochs=1))
    modules = dict(fitted.model.scorer.named_modules())
    tables = {key for key, one in modules.items() if isinstance(one, nn.Embedding) and one.sparse}
    dense = {key for key, one in modules.items() if isinstance(one, nn.Embedding) and not one.sparse}
    assert tables and dense


def test_a_table_that_a_plugin_makes_sparse_is_refused_with_options_that_need_dense_gradients():
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True))
    for options in ({"weight_decay": 0.1}, {"max_norm": 1.0}):
        with pytest.raises(ConfigError, match="the table '0' has sparse gradients"):
            Optimizer(model, OptimizerConfig(**options))
