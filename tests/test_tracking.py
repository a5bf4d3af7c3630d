"""Trackers: what they record, and that their failures cost nothing of a training."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small import call, small_config, small_dataset

from anyrec import Recommender, Tracker, Tracking
from anyrec.core.errors import ConfigError, MissingDependency
from anyrec.core.load_config import load_config
from anyrec.training import tracking as module

EPOCHS = 3


class Memory(Tracker):
    """Remembers all calls. `broken` names methods that raise."""

    def __init__(self, broken=(), message="the server is away"):
        super().__init__()
        self.calls, self.broken, self.message = [], set(broken), message

    def note(self, name, *values):
        if name in self.broken:
            raise ConnectionError(self.message)
        self.calls.append((name, *values))

    def start(self, run):
        self.note("start", run)
        return "run 7"

    def epoch(self, step, metrics):
        self.note("epoch", step, metrics)

    def finish(self, result):
        self.note("finish", result)

    def fail(self):
        self.note("fail")

    def steps(self, prefix=""):
        return [call[1] for call in self.calls if call[0] == "epoch" and f"{prefix}loss" in call[2]]


def fitted(tracker, run_dir=None, **changes):
    recommender = Recommender.from_config(small_config(**changes))
    recommender.fit(small_dataset(), progress=False, trackers=[tracker], run_dir=run_dir)
    return recommender


@pytest.fixture
def warnings(caplog):
    """The warnings of trackers."""
    return lambda: [one.message for one in caplog.records if one.message.startswith("tracking:")]


# -- what the frame records --------------------------------------------------------------------------------------------


def test_a_tracker_gets_the_config_each_epoch_and_the_result(tmp_path):
    tracker = Memory()
    recommender = fitted(tracker, tmp_path / "run")
    (_, run), *epochs, (_, result) = tracker.calls
    assert run.name == "model" and run.parameters["training.epochs"] == EPOCHS and run.former is None
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step for _, step, _ in epochs] == [1, 2, 3] == [entry["epoch"] for entry in logged]
    for (_, _, metrics), entry in zip(epochs, logged, strict=True):
        assert metrics["loss"] == entry["loss"]
        assert metrics["validation/ndcg@10"] == entry["validation"]["ndcg@10"]
    assert result.metrics == recommender.metrics and result.files == [tmp_path / "run" / "metrics.jsonl"]
    with result.model_directory() as directory:
        assert len(Recommender.load(directory).recommend(["u001"], k=5)) == 5
    assert not directory.exists()


def test_the_second_training_of_a_refit_has_a_prefix_of_its_own():
    tracker = Memory()
    reported = []
    recommender = Recommender.from_config(small_config(training={"epochs": 2, "batch_size": 128, "refit": True}))
    recommender.fit(small_dataset(), progress=False, trackers=[tracker], report=reported.append)
    assert tracker.steps() == [1, 2] and tracker.steps("refit/") == list(range(1, recommender.result.best_epoch + 1))
    assert [entry.get("stage") for entry in reported[:3]] == [None, None, "refit"]


def test_a_training_that_fails_ends_the_run_as_failed():
    tracker = Memory()
    with pytest.raises(KeyboardInterrupt):
        recommender = Recommender.from_config(small_config())
        recommender.fit(small_dataset(), progress=False, trackers=[tracker], report=_interrupt)
    assert [call[0] for call in tracker.calls] == ["start", "epoch", "fail"]


def _interrupt(entry):
    raise KeyboardInterrupt


def test_a_resumed_training_goes_on_with_the_run_and_records_no_epoch_twice(tmp_path):
    first, second = Memory(), Memory()
    with pytest.raises(KeyboardInterrupt):
        Recommender.from_config(small_config()).fit(
            small_dataset(), progress=False, trackers=[first], run_dir=tmp_path, report=_interrupt
        )
    recommender = Recommender.from_config(small_config())
    recommender.fit(small_dataset(), progress=False, trackers=[second], run_dir=tmp_path, resume=True)
    assert second.calls[0][1].former == "run 7" and second.calls[0][1].epoch == 1
    assert first.steps() == [1] and second.steps() == [2, 3]


def test_an_epoch_that_was_saved_but_not_recorded_before_a_crash_is_recorded_by_the_resumed_training(tmp_path):
    crashing, second = Memory(broken=["epoch"]), Memory()
    with pytest.raises(KeyboardInterrupt):
        Recommender.from_config(small_config()).fit(
            small_dataset(), progress=False, trackers=[crashing], run_dir=tmp_path, report=_interrupt
        )
    recommender = Recommender.from_config(small_config())
    recommender.fit(small_dataset(), progress=False, trackers=[second], run_dir=tmp_path, resume=True)
    assert second.steps() == [1, 2, 3]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [["start"], ["epoch"], ["finish"], ["start", "epoch", "finish"]])
def test_a_tracker_that_fails_changes_no_training_and_warns_once(broken, warnings):
    alone = Recommender.from_config(small_config()).fit(small_dataset(), progress=False)
    found = fitted(Memory(broken=broken))
    assert found.metrics == alone.metrics
    assert found.recommend(["u001"]).equals(alone.recommend(["u001"]))
    shown = warnings()
    assert sum("failed, and the training goes on: ConnectionError: the server is away" in one for one in shown) == 1
    assert any("did not record all of this training" in one for one in shown)


def test_calls_to_a_server_that_was_away_are_made_up_for(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    tracker = Memory(broken=["start", "epoch"])

    def report(entry):
        if entry["epoch"] == 2:
            tracker.broken.clear()

    recommender = Recommender.from_config(small_config())
    recommender.fit(small_dataset(), progress=False, trackers=[tracker], report=report)
    assert [call[0] for call in tracker.calls] == ["start", "epoch", "epoch", "epoch", "finish"]
    assert tracker.steps() == [1, 2, 3]


def test_a_server_that_is_away_is_not_called_at_each_epoch():
    tracker = Memory(broken=["start"])
    tries = []
    tracker.note = lambda *call: (tries.append(call[0]), (_ for _ in ()).throw(ConnectionError("away")))
    fitted(tracker)
    assert tries == ["start", "start"]  # at the start, and once more at the end


def test_warnings_have_no_credentials(monkeypatch, warnings):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush-hush-token")
    fitted(Memory(broken=["start"], message="401 for hush-hush-token at http://ann:hush-hush@server:5000"))
    assert "401" in warnings()[0] and "hush" not in " ".join(warnings())


def test_a_password_in_the_config_is_an_error_that_does_not_show_it():
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as error:
        load_config({"tracking": {"mlflow": {"uri": "https://ann:hush-hush@server"}}})
    assert "hush" not in str(error.value)


def test_options_and_names_of_trackers_are_checked():
    with pytest.raises(ConfigError) as error:
        load_config({"tracking": {"mlflow": {"expirement": "x"}, "w": {"type": "wandbb"}}})
    assert "Did you mean 'experiment'?" in str(error.value) and "there is no tracker 'wandbb'" in str(error.value)


def test_a_missing_package_is_an_error_before_the_training(monkeypatch):
    class Absent(Memory):
        type, package, extra = "absent", "no_such_package", "absent"

    tracker = Absent()
    with pytest.raises(MissingDependency, match=r"pip install 'anyrec\[absent\]'"):
        fitted(tracker)
    assert tracker.calls == []


def test_the_trackers_of_a_model_that_is_not_trusted_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small_config(model={"type": "popularity"}, tracking={"tensorboard": {"folder": "events"}})
    first = Recommender.from_config(config).fit(small_dataset(), progress=False)
    assert Path("events").is_dir()
    os.rename("events", "before")
    loaded = Recommender.load(first.save(tmp_path / "model"))
    loaded.fit(small_dataset(), progress=False)
    assert not Path("events").exists() and any("'tracking' is left out" in note for note in loaded.notes)


def test_only_one_of_several_processes_records(monkeypatch):
    from anyrec.core.processes import Processes

    monkeypatch.setattr(module, "processes", lambda: Processes(1, 2))
    tracker = Memory()
    with Tracking({"memory": tracker}) as tracking:
        tracking.start(load_config(small_config())[0])
    assert tracker.calls == []


# -- the built-in trackers ---------------------------------------------------------------------------------------------


def test_mlflow_has_steps_and_files_and_its_registered_model_makes_lists(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'anyrec[mlflow]'")
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    store = {"uri": "sqlite:///mlflow.db", "experiment": "shops", "register_as": "shop", "aliases": ["champion"]}
    config = small_config(name="shop", tracking={"mlflow": store})
    config["evaluation"] = {"report": False}
    Path("cfg.json").write_text(json.dumps(config))
    Path("data").mkdir()
    data = small_dataset()
    for part in ("users", "items", "interactions"):
        pq.write_table(getattr(data, part), f"data/{part}.parquet")
    code, shown, error = call("train", "--config", "cfg.json", "--data", "data")
    assert code == 0 and "tracking" not in shown + error, shown + error
    client = mlflow.MlflowClient(tracking_uri=store["uri"])
    (run,) = client.search_runs([client.get_experiment_by_name("shops").experiment_id])
    logged = [json.loads(line) for line in Path("models/shop/metrics.jsonl").read_text().splitlines()]
    history = client.get_metric_history(run.info.run_id, "validation/ndcg_at_10")
    assert [(one.step, one.value) for one in history] == [(e["epoch"], e["validation"]["ndcg@10"]) for e in logged]
    assert run.info.status == "FINISHED" and run.data.params["training.epochs"] == "3"
    assert run.data.metrics["final/test/ndcg_at_10"] > 0
    reports = {one.path for one in client.list_artifacts(run.info.run_id, "report")}
    assert {"report/config.json", "report/metrics.jsonl"} <= reports
    mlflow.set_tracking_uri(store["uri"])
    lists = mlflow.pyfunc.load_model("models:/shop@champion").predict(
        pandas.DataFrame({"user_id": ["u001", "u002"]}), params={"k": 3}
    )
    expected = Recommender.load("models/shop").recommend(["u001", "u002"], k=3)
    assert lists.equals(expected.to_pandas())
    assert not list(Path("mlruns").rglob("*.pkl"))


def test_tensorboard_has_curves_and_hyper_parameters_and_goes_on_after_resuming(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'anyrec[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small_config(tracking={"tensorboard": {"embeddings": 10}})
    with pytest.raises(KeyboardInterrupt):
        Recommender.from_config(config).fit(small_dataset(), progress=False, run_dir=tmp_path, report=_interrupt)
    Recommender.from_config(config).fit(small_dataset(), progress=False, run_dir=tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    points = events.Scalars("validation/ndcg@10")
    assert [point.step for point in points] == [1, 2, 3]
    assert [point.value for point in points] == pytest.approx([one["validation"]["ndcg@10"] for one in logged])
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    assert len(next(tmp_path.rglob("metadata.tsv")).read_text().split()) == 10


def test_wandb_writes_an_offline_run_without_a_key(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'anyrec[wandb]'")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    config = small_config(tracking={"wandb": {"mode": "offline", "project": "shops"}})
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False, run_dir=tmp_path)
    assert recommender.metrics
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    content = next(run.glob("*.wandb")).read_bytes()
    assert b"validation/ndcg@10" in content and b"final/test/ndcg@10" in content
    state = json.loads((tmp_path / "tracking.json").read_text())
    assert state["wandb"]["epochs"] == {"": EPOCHS} and run.name.endswith(state["wandb"]["run"])
