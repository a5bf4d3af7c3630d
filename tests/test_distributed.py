"""Several processes take the same steps as one: parameters and metrics are equal in float64."""

from dataclasses import replace
from shutil import copytree
from unittest.mock import patch

import pyarrow as pa
import pytest
import torch
from small import small_dataset

from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.core.processes import ALONE, Processes
from anyrec.core.ragged import Prepared, Ragged
from anyrec.data.defaults import resolve_config
from anyrec.data.learning import LearningData
from anyrec.model.build import training_context
from anyrec.training import kept_gradients
from anyrec.training.fit import fit
from anyrec.training.loop import FitOptions
from anyrec.training.samples import make_samples
from tests.gloo import run

IDS = {"identity": {"type": "identity"}}
FEATURES = {
    "text": {"type": "hashed", "buckets": 64},
    "continuous": {"type": "continuous"},
    "categorical": {"type": "categorical"},
}
LITTLE = {"continuous": {"type": "continuous"}, "categorical": {"type": "categorical"}}
"""Features of most cases, which encode in little time."""
HISTORY = {"history": {"window": 6, "layers": 2, "dropout": 0.3}}
SET = {"history": {"type": "set"}}
DROPPED = {"id_dropout": 0.3, "item": {"feature_dropout": 0.2}, "user": {"feature_dropout": 0.2}}
MIMIC = {"type": "adaptive_mimic", "dropout": 0.3, "mimic": 0.5}
EXPLICIT = {"explicit_negatives": True}
SOFTMAX = {"loss": {"type": "softmax"}}
KIND = {"type": "interaction_type", "dropout": 0.3, "hidden_dims": [8]}
HEADS = {"heads": {"kind": KIND, "stars": {"type": "rating"}}}
ADAMW = {"type": "adamw", "learning_rate": 0.01}
WEIGHTS = {"data": {"positive_types": {"buy": 3.0, "view": 0.5}}}
IN_BATCH = {"negatives": {"type": "in_batch", "block": 8}}
SMALL_STEPS = {"training": {"batch_size": 16, "epochs": 2, "evaluate_every": 2}}
"""Fewer positives in a step than items: a softmax over all items is divided into slices."""

CASES = {
    # every loss
    **{f"loss {name}": {"loss": {"type": name}} for name in ("focal", "gbce", "bpr", "triplet", "contrastive")},
    "loss combined": {"loss": {"type": "combined"}},
    "loss bce": {"loss": {"type": "bce"}, **WEIGHTS, **HEADS},
    "loss softmax": {**SOFTMAX, "negatives": {"type": "popularity"}, **EXPLICIT},
    "loss infonce": {"loss": {"type": "infonce"}, **IN_BATCH},
    "loss full softmax": {"loss": {"type": "full_softmax"}, "features": IDS, **WEIGHTS},
    "full softmax with features": {"loss": {"type": "full_softmax"}, **DROPPED},
    "full softmax over slices": {"loss": {"type": "full_softmax"}, **DROPPED, **SMALL_STEPS},
    "sequence, full softmax over slices": {
        "features": HISTORY,
        "loss": {"type": "full_softmax"},
        **SMALL_STEPS,
        **WEIGHTS,
    },
    "full softmax without blocks": {"loss": {"type": "full_softmax"}, "interaction": {"type": "mlp", "dropout": 0.2}},
    # every sampler
    **{
        f"sampler {name}": {"negatives": {"type": name}, **SOFTMAX, **WEIGHTS}
        for name in ("uniform", "popularity", "shared", "mixed")
    },
    "sampler in batch": {**IN_BATCH, **SOFTMAX, "features": {"identity": {"dropout": 0.3}}},
    "sampler hard": {"negatives": {"type": "hard", "top": 8, "refresh": 3}, "loss": {"type": "bpr"}, **EXPLICIT},
    "sampler labelled": {"negatives": {"type": "labelled"}, "loss": {"type": "bce"}, **EXPLICIT, **HEADS, **WEIGHTS},
    # histories
    "sequence, full softmax": {"features": HISTORY, "loss": {"type": "full_softmax"}, **WEIGHTS},
    "sequence, in batch": {"features": HISTORY, **IN_BATCH, **SOFTMAX, "history_dropout": 0.2, **HEADS},
    "sequence, uniform": {"features": {**HISTORY, **FEATURES}, **DROPPED, "history_dropout": 0.2},
    "sequence, hard": {"features": HISTORY, "negatives": {"type": "hard", "top": 8}, "loss": {"type": "bpr"}},
    "masked sequence": {
        "features": {"history": {"window": 6, "block": "bidirectional", "variant": "pre_norm", "mask_share": 0.3}},
        "negatives": {"type": "shared", "size": 16},
        **SOFTMAX,
    },
    "recurrent sequence": {"features": {"history": {"window": 6, "block": "gru", "dropout": 0.3}}},
    "set, full softmax": {"features": SET, "loss": {"type": "full_softmax"}, **WEIGHTS},
    "set, uniform": {"features": {**SET, **FEATURES}, **DROPPED, "history_dropout": 0.2, **HEADS},
    "set, in batch": {"features": SET, **IN_BATCH, **SOFTMAX},
    # fusions and interactions with dropout
    "adaptive mimic": {"fusion": MIMIC, **DROPPED, **IN_BATCH, **SOFTMAX},
    "attention": {"fusion": {"type": "attention", "num_heads": 2, "dropout": 0.3}, **DROPPED},
    "gated": {"fusion": {"type": "gated"}, "interaction": {"type": "mlp", "dropout": 0.3}, **IN_BATCH},
    "attention interaction": {"interaction": {"type": "attention", "num_heads": 2, "dropout": 0.3}, **IN_BATCH},
    "sequence of tokens": {"features": HISTORY, "interaction": {"type": "attention", "num_heads": 2}},
    # optimizers
    "sparse tables": {"features": IDS, "training": {"optimizer": {"sparse": True}}, **IN_BATCH, **SOFTMAX},
    "divided tables": {"features": IDS, **IN_BATCH, **SOFTMAX, "cluster": {"shard_rows": 1}},
    "divided sparse tables": {"training": {"optimizer": {"sparse": True}}, "cluster": {"shard_rows": 1}},
    "limits": {
        "training": {"optimizer": {**ADAMW, "max_norm": 0.5, "weight_decay": 0.01}, "gradient_clip": 0.1},
        **EXPLICIT,
    },
    "average": {
        "training": {"average_epochs": 1.0, "evaluate_every": 1, "scheduler": {"type": "cosine", "warmup": 0.2}},
        **IN_BATCH,
    },
}
UNEVEN = ("loss bce", "sequence, in batch", "set, full softmax", "sampler hard")
"""Cases that three processes train as well: batches and groups have no multiple of three rows."""


def dataset():
    """Interactions of two kinds, some of them explicitly negative."""
    data = small_dataset(users=30, items=24, each=9)
    labels = pa.array([0 if n % 5 == 0 else None for n in range(len(data.interactions))], pa.int8())
    data.interactions = data.interactions.append_column("label", labels)
    return data


def trained(changes, processes: Processes, data, registry, **options):
    """Fit in float64; return the parameters by name and the entries of metrics.jsonl."""
    training = {"epochs": 5, "batch_size": 50, "patience": None, "evaluate_every": 5, "precision": "float32"}
    training |= {"gradient_clip": 1.0, **changes.get("training", {})}
    training["optimizer"] = {"type": "sgd", "learning_rate": 0.05, **training.get("optimizer", {})}
    given = {"defaults": "fixed", "dim": 8, "features": {**IDS, **LITTLE}, **changes, "training": training}
    if processes.alone:
        given = {**given, "cluster": {}}
    config, _ = load_config(given, registry=registry)
    config, _ = resolve_config(config, data, registry)
    learning, _ = LearningData.make(data.sorted(), config)

    def double_weights(*arguments):
        samples = make_samples(*arguments)
        return samples if samples.weights is None else replace(samples, weights=samples.weights.double())

    def double(model):
        model.scorer.double()
        for columns in model.columns.values():
            for name, (values, present) in columns.items():
                columns[name] = Prepared(as_double(values), present)

    context = training_context(config, learning.dataset, "cpu", True)
    with patch("anyrec.training.fit.make_samples", double_weights):
        options = FitOptions(started=double, processes=processes, **options)
        found = fit(config, learning, registry, context, options=options)
    assert found.result is not None
    return found.model.scorer.state_dict(), found.result.history


def as_double(values):
    if isinstance(values, dict):
        return values
    if isinstance(values, Ragged):
        return Ragged(as_double(values.values), values.offsets)
    return values.double() if values.is_floating_point() else values


def compare(processes: Processes, names) -> None:
    """Train each case together, and alone in one of the processes. Called in each process."""
    data, registry, wrong = dataset(), discover(), {}
    for number, name in enumerate(names):
        try:
            together, shared = trained(CASES[name], processes, data, registry)
            if "cluster" not in CASES[name]:
                whole = torch.cat([value.flatten().double() for value in together.values()])[None]
                assert len(torch.unique(processes.gather(whole), dim=0)) == 1, "the processes differ"
            elif not processes.first:  # the first has the whole tables in the end
                continue
            if number % processes.size == processes.rank or "cluster" in CASES[name]:
                found = list(differences(*trained(CASES[name], ALONE, data, registry), together, shared))
                wrong |= {name: found} if found else {}
        except Exception as error:
            error.add_note(f"case {name}")
            raise
    assert not wrong, wrong


def differences(parameters, history, others, other_history):
    """What differs between two trainings."""
    far = max(float((parameters[key] - others[key]).abs().max()) for key in parameters)
    if not far <= 1e-10:  # also if it is no number
        yield f"a parameter by {far}"
    for one, other in zip(history, other_history, strict=True):
        if one.get("validation") != other.get("validation"):
            yield "a metric"
        if abs(one["loss"] - other["loss"]) > 1e-5:  # summed in float32
            yield "the loss"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one() -> None:
    run(compare, 2, list(CASES))


LARGE = ("limits", "average", "divided tables", "sampler uniform", "sequence, hard")
"""Cases that are trained as if their tables were large."""


def compare_large(processes: Processes) -> None:
    """Compare trainings that keep the gradients of tables with those that do not. Called in each process."""
    data, registry = dataset(), discover()
    usual = {name: trained(CASES[name], ALONE, data, registry) for name in LARGE}
    with patch.object(kept_gradients, "SMALLEST", 0):
        for name, (expected, history) in usual.items():
            found = trained(CASES[name], ALONE, data, registry)
            assert not list(differences(expected, history, *found)), name
        compare(processes, LARGE)


@pytest.mark.slow
def test_large_tables_are_trained_like_others() -> None:
    run(compare_large, 2, network=True)


@pytest.mark.slow
def test_three_processes_with_uneven_shares_take_the_steps_of_one() -> None:
    run(compare, 3, list(UNEVEN), network=True)


RESUMED = {"two": {"history": HISTORY["history"]}, "divided": IDS}


def case(name, epochs):
    """A config whose run can go on for more epochs."""
    options = {"cluster": {"shard_rows": 1}} if name == "divided" else {}
    training = {"epochs": epochs, "evaluate_every": 1, "optimizer": {"type": "adam", "learning_rate": 0.001}}
    return {"features": RESUMED[name], **IN_BATCH, **SOFTMAX, **options, "training": training}


def resume(processes: Processes, folder) -> None:
    """Interrupt trainings of one and of several processes, and go on with another number. Called in each process."""
    data, registry = dataset(), discover()
    for name in RESUMED:
        whole, _ = trained(case(name, 4), processes, data, registry)
        runs = {one: folder / f"{name}-{one}-{processes.size}" for one in ("alone", "together", "same", "other")}
        trained(case(name, 2), processes, data, registry, run_dir=runs["together"])
        if processes.first:
            trained(case(name, 2), ALONE, data, registry, run_dir=runs["alone"])
            for one in ("same", "other"):
                copytree(runs["together"], runs[one])
        processes.wait()
        on = {"resume": True}
        same, _ = trained(case(name, 4), processes, data, registry, run_dir=runs["same"], **on)
        more, _ = trained(case(name, 4), processes, data, registry, run_dir=runs["alone"], **on)
        if processes.first:
            fewer, _ = trained(case(name, 4), ALONE, data, registry, run_dir=runs["other"], **on)
            for key, value in whole.items():
                assert torch.equal(value, same[key]), f"{name}: {key} differs if the same number goes on"
                assert (value - fewer[key]).abs().max() <= 1e-10, f"{name}: {key} differs if one process goes on"
                assert (value - more[key]).abs().max() <= 1e-10, f"{name}: {key} differs if more processes go on"
        processes.wait()


def resume_of_two(processes: Processes, folder) -> None:
    """Go on with trainings of two processes. Called in each of three processes."""
    data, registry = dataset(), discover()
    for name in RESUMED:
        whole, _ = trained(case(name, 4), processes, data, registry)
        found, _ = trained(case(name, 4), processes, data, registry, run_dir=folder / f"{name}-together-2", resume=True)
        if processes.first:
            assert all((value - found[key]).abs().max() <= 1e-10 for key, value in whole.items()), name


@pytest.mark.slow
def test_a_training_goes_on_with_any_number_of_processes(tmp_path) -> None:
    run(resume, 2, tmp_path)
    run(resume_of_two, 3, tmp_path, network=True)
