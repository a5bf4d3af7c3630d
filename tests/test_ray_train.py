"""Workers of a Ray cluster train one model. A killed worker changes no bit of it; bad input is reported as usual."""

import json

import pytest
from small import call, small_config, small_dataset

from anyrec.data.formats.write_json import write_json

ray = pytest.importorskip("ray", reason="pip install 'anyrec[scale]'")
pytestmark = pytest.mark.slow

MORTAL = '''
"""A loss that kills the second process once, after the first epoch."""

import os
import signal
from pathlib import Path

from anyrec.classifier.losses import BPR


class Mortal(BPR):
    """BPR, until it dies."""

    type = "mortal"

    def forward(self, positive, negative, valid, weight):
        mark, saved = Path("killed"), Path("models", "killed", "checkpoints")
        if os.environ.get("RANK") == "1" and not mark.exists() and any(saved.glob("*")):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(positive, negative, valid, weight)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with data, a config and the plugin, and a running Ray."""
    folder = tmp_path_factory.mktemp("ray")
    write_json(small_dataset(), folder / "data.json")
    (folder / "losses").mkdir()
    (folder / "losses" / "mortal.py").write_text(MORTAL)
    changes = {"loss": {"type": "mortal"}, "plugins": ["losses"], "evaluation": {"baselines": [], "report": False}}
    (folder / "cfg.json").write_text(json.dumps(small_config(**changes)))
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield folder
    ray.shutdown()


def train(*options):
    where = ("--set", "cluster.type=ray", "--set", "cluster.workers=2")
    return call("train", "--config", "cfg.json", *where, *options)


def test_a_killed_worker_changes_no_bit_of_the_weights(folder, monkeypatch):
    monkeypatch.chdir(folder)
    code, printed, message = train("--data", "data.json", "--set", "name=killed")
    assert code == 0 and (folder / "killed").exists() and "A worker died" in message, message
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("epoch")] == ["1", "2", "3"]
    assert "saved: models/killed/model" in printed
    assert not (folder / "models" / "killed" / "ray").exists()
    code, _, message = train("--data", "data.json", "--set", "name=whole")  # the mark is there: nobody dies
    assert code == 0, message
    first, second = ((folder / "models" / name / "model" / "model.safetensors") for name in ("killed", "whole"))
    assert first.read_bytes() == second.read_bytes()


def test_bad_data_ends_the_training_with_its_faults_and_without_a_restart(folder, monkeypatch):
    monkeypatch.chdir(folder)
    document = json.loads((folder / "data.json").read_text())
    document["interactions"][3]["item_id"] = "nothing"
    (folder / "bad.json").write_text(json.dumps(document))
    code, printed, message = train("--data", "bad.json", "--set", "name=bad")
    assert code == 2 and "/interactions/3/item_id" in message and "Traceback" not in printed + message
    assert not (folder / "models" / "bad").exists()
