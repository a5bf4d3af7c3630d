"""Training runs: a failure after the last epoch does not lose the model; files of an older model are removed."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from small import call, small_dataset

from anyrec.cli.run import RunInputs, report_run, train_run
from anyrec.core.errors import InputError, ModelError, OutputError
from anyrec.core.files import exclusive
from anyrec.core.load_config import load_config
from anyrec.data.formats.write_json import write_json
from anyrec.evaluation.measure import EvaluationResult
from anyrec.recommender import Recommender
from anyrec.report.compare import compare_runs
from anyrec.retrieval.model_index import item_index
from anyrec.storage.model_card import metric_names
from anyrec.storage.model_directory import model_id

CONFIG = {
    "name": "a",
    "defaults": "fixed",
    "blend": None,
    "dim": 8,
    "training": {"epochs": 2, "batch_size": 128, "patience": None},
    "evaluation": {"baselines": ["popularity"], "report": False},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.json"
    write_json(small_dataset(), path)
    return path


def train(data: Path, runs: Path, resume: bool = False, **changes) -> str:
    """Train a run and give what it printed. changes: keys of the config, or of its `training` or `evaluation`."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        place = next((config[part] for part in ("training", "evaluation") if key in config[part]), config)
        place[key] = value
    settings, _ = load_config({**config, "output_dir": str(runs)})
    printed = io.StringIO()
    train_run(RunInputs(settings, data, resume=resume), Console(file=printed, width=300))
    return printed.getvalue()


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def raises(error: BaseException):
    def instead(*args, **options):
        raise error

    return instead


def test_the_model_is_saved_before_it_is_evaluated(data, tmp_path, monkeypatch):
    there = []
    evaluate = Recommender.evaluate

    def watched(self, part="test"):
        there.append((part, (tmp_path / "a" / "model" / "manifest.json").exists()))
        return evaluate(self, part)

    monkeypatch.setattr(Recommender, "evaluate", watched)
    train(data, tmp_path, blend=None, training={**CONFIG["training"], "refit": False})
    assert there[-2:] == [("validation", True), ("test", True)]
    manifest = json.loads((tmp_path / "a" / "model" / "manifest.json").read_text())
    card = (tmp_path / "a" / "model" / "README.md").read_text()
    assert set(manifest["metrics"]) == {"validation", "test"} and "| ndcg@10 |" in card
    assert Recommender.load(tmp_path / "a").metrics == manifest["metrics"]
    assert manifest["id"] == model_id(tmp_path / "a")


def test_a_model_with_an_index_and_a_pipeline_loads_after_its_metrics_are_added(data, tmp_path):
    train(data, tmp_path, epochs=1, index={"type": "faiss", "kind": "flat"}, pipeline={"retrieve": {"k": 20}})
    model = Recommender.load(tmp_path / "a")
    assert set(model.metrics) == {"validation", "test"} and item_index(model.model) is not None
    assert len(model.recommend(["u000"], 3)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("the part is not measured", "anyrec.recommender.Recommender.evaluate"),
        ("the metrics are not written", "anyrec.cli.run.update_metrics"),
        ("the report fails", "anyrec.cli.run.report_run"),
        ("the report's page fails", "anyrec.report.write.write_page"),
        ("a baseline cannot be saved", "anyrec.report.write.atomic_files"),
        ("older results are not removed", "anyrec.cli.run.remove_report"),
    ],
)
@pytest.mark.parametrize("error", [KeyError("auc"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_after_the_last_epoch_is_a_warning_and_the_model_is_saved(
    what, where, error, data, tmp_path, monkeypatch
):
    evaluate = Recommender.evaluate

    def fails_once_saved(self, part="test"):
        if (tmp_path / "a" / "model").exists():
            raise error
        return evaluate(self, part)

    monkeypatch.setattr(where, fails_once_saved if "evaluate" in where else raises(error))
    printed = train(data, tmp_path, report="report" in where, epochs=1)
    assert "the model is saved, but" in printed or "could not be measured" in printed
    assert len(Recommender.load(tmp_path / "a").recommend(["u000"], 3)) == 3


def test_a_metric_of_one_part_only_is_blank_for_the_other_in_the_card_and_the_table():
    assert metric_names({"validation": {"auc": 0.5, "mrr": 0.1}, "test": {"mrr": 0.2, "map": 0.1}}) == [
        "auc",
        "mrr",
        "map",
    ]
    assert metric_names({}) == []


def test_the_mean_of_a_metric_without_values_is_nan_and_no_warning():
    measured = EvaluationResult(
        "m", cast(Any, None), {"auc": np.full(2, np.nan), "mrr": np.array([1, np.nan])}, {}, 0.0
    )
    with warnings.catch_warnings(action="error"):
        assert np.isnan(measured.mean("auc")) and measured.mean("mrr") == 1


def test_a_user_who_interacted_with_every_other_item_does_not_lose_the_model(tmp_path):
    """The area under the curve is then not a number at test."""
    items = [{"item_id": f"i{n}", "categorical": {"kind": "ab"[n % 2]}} for n in range(4)]
    events = [{"user_id": "u", "item_id": f"i{n}", "timestamp": 1_700_000_000 + n} for n in range(4)]
    document = {"user_data": [{"user_id": "u"}], "item_data": items, "interactions": events}
    (tmp_path / "one.json").write_text(json.dumps(document))
    train(tmp_path / "one.json", tmp_path, epochs=1)
    assert (tmp_path / "a" / "model" / "README.md").is_file()


def test_training_again_removes_the_files_of_the_previous_model_and_no_others(data, tmp_path):
    train(data, tmp_path, report=True)
    run = tmp_path / "a"
    code, _, message = call("index", "--model_path", run, "--type", "exact")
    assert code == 0, message
    first = below(run)
    assert {"report.html", "report.md", "split.parquet", "evaluation/users.parquet", "index/manifest.json"} <= first
    assert any(name.startswith("figures/") for name in first)
    record = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert record["model"] == model_id(run)
    for mine in ("figures/mine.png", "evaluation/mine.txt", "notes.txt"):
        (run / mine).write_text("mine")
    train(data, tmp_path, dim=4)
    left = {name for name in below(run) if not name.startswith(("model/", "checkpoints/", "refit/"))}
    assert left == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "overview.json",
        "figures/mine.png",
        "evaluation/mine.txt",
        "notes.txt",
    }
    assert json.loads((run / "overview.json").read_text())["model"] == model_id(run)


def test_the_same_model_trained_again_keeps_its_report(data, tmp_path, monkeypatch):
    train(data, tmp_path, report=True)
    before = below(tmp_path / "a")
    monkeypatch.setattr("anyrec.cli.run.report_run", lambda *a: None)
    train(data, tmp_path, report=True)
    assert below(tmp_path / "a") == before


def test_the_evaluation_of_another_model_is_an_error(data, tmp_path):
    for name in ("a", "b"):
        train(data, tmp_path, name=name, report=True)
    runs = [tmp_path / "a", tmp_path / "b"]
    assert compare_runs(runs).metric
    for path in (tmp_path / "a" / "evaluation" / "users.parquet", tmp_path / "a" / "model" / "manifest.json"):
        whole = path.read_bytes()
        path.write_bytes((tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes())
        with pytest.raises(InputError, match="belongs to another model"):
            compare_runs(runs)
        path.write_bytes(whole)
    assert compare_runs(runs).metric


def test_an_evaluation_that_names_files_outside_its_run_removes_none_of_them(data, tmp_path):
    train(data, tmp_path)
    run = tmp_path / "a"
    (tmp_path / "outside.txt").write_text("x")
    (run / "evaluation").mkdir()
    listed = {"files": ["../outside.txt", str(tmp_path / "outside.txt")], "baseline": "../../outside.txt"}
    (run / "evaluation" / "evaluation.json").write_text('{"model": "older"}')
    (run / "evaluation" / "files.json").write_text(json.dumps(listed))
    train(data, tmp_path)
    assert (tmp_path / "outside.txt").exists() and not (run / "evaluation" / "evaluation.json").exists()


@pytest.mark.slow
def test_a_report_that_cannot_be_completed_does_not_change_the_last_one(data, tmp_path, monkeypatch):
    train(data, tmp_path, report=True)
    run = tmp_path / "a"
    before = {name: (run / name).read_bytes() for name in below(run)}
    model = Recommender.load(run)
    from anyrec.cli.datasets import read_dataset

    monkeypatch.setattr("anyrec.report.write.save_figures", raises(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OutputError, match="the disk is full"):
        report_run(model.with_data(read_dataset(data, model.config)), run, Console(file=io.StringIO()))
    after = {name: (run / name).read_bytes() for name in below(run)}
    report = [name for name in before if not name.startswith("baselines/")]
    assert set(after) == set(before) and all(after[name] == before[name] for name in report)


def test_an_output_that_cannot_be_a_run_is_an_error_before_the_data_are_read(tmp_path):
    nowhere = tmp_path / "no data.json"
    (tmp_path / "file").write_text("x")
    (tmp_path / "taken" / "a" / "model").mkdir(parents=True)
    (tmp_path / "taken" / "a" / "model" / "thesis.txt").write_text("years of work")
    (tmp_path / "foreign" / "a").mkdir(parents=True)
    (tmp_path / "foreign" / "a" / "config.json").write_text("{}")
    for runs, error, what in (
        ("file", OutputError, "is a file"),
        ("file/x", OutputError, "is a file"),
        ("taken", ModelError, "is not a model"),
        ("foreign", OutputError, "is not a run"),
    ):
        with pytest.raises(error, match=what):
            train(nowhere, tmp_path / runs)
    assert (tmp_path / "foreign" / "a" / "config.json").read_text() == "{}"


def test_a_second_training_into_one_folder_is_an_error_that_names_the_first(data, tmp_path):
    import threading

    errors: list[str] = []

    def second():
        try:
            train(data, tmp_path)
        except OutputError as error:
            errors.append(str(error))

    with exclusive(tmp_path / "a"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(errors) == 1 and f"process {os.getpid()} is writing here" in errors[0]


def test_files_of_a_run_have_the_permissions_of_the_umask(data, tmp_path):
    before = os.umask(0o022)
    try:
        train(data, tmp_path)
        assert call("embed", "--model_path", tmp_path / "a", "--output", tmp_path / "e")[0] == 0
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o644}


def test_embeddings_of_users_and_items_are_written_as_one_unit_with_the_id_of_the_model(data, tmp_path, monkeypatch):
    train(data, tmp_path)
    out = tmp_path / "e"
    assert call("embed", "--model_path", tmp_path / "a", "--output", out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ids = {pq.read_schema(out / name).metadata[b"model"].decode() for name in before}
    assert set(before) == {"users.parquet", "items.parquet"} and ids == {model_id(tmp_path / "a")}
    write, calls = pq.ParquetWriter.write_table, []

    def full_at_the_second(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full_at_the_second)
    code, _, message = call("embed", "--model_path", tmp_path / "a", "--output", out)
    assert code == 2 and "the disk is full" in message
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.slow
def test_a_signal_during_training_ends_with_its_code_and_a_hint_and_leaves_nothing(data, tmp_path):
    settings = ["name=a", "dim=4", "training.epochs=100000", "training.patience=null", "evaluation.report=false"]
    settings.append("training.evaluate_every=1")  # the best weights are those of a validation
    command = [sys.executable, "train.py", "--data", data, "--output", tmp_path]
    command += [part for setting in settings for part in ("--set", setting)]
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [*map(str, command)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch   2"):
            break
    process.send_signal(signal.SIGTERM)
    out, message = process.communicate()
    assert process.returncode == 143, message
    assert message.strip() == "stopped by SIGTERM. `--resume` goes on from the last finished epoch."
    assert below(tmp_path / "a") == {
        "metrics.jsonl",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


COMMANDS = [
    ("recommend", "--model_path", "none", "--data", "none", "--output"),
    ("recommend", "--model_path", "none", "--all", "--output"),
    ("embed", "--model_path", "none", "--output"),
    ("synth",),
    ("convert", "movielens", "SOURCE"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_every_command_rejects_an_output_inside_a_file_before_it_works(command, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "u.data").write_text("")
    arguments = [str(tmp_path / "ratings") if part == "SOURCE" else part for part in command]
    code, _, message = call(*arguments, tmp_path / "file" / "x")
    assert code == 2 and "a part of this path is a file" in message
