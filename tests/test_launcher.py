"""Only `anyrec train` runs in the processes of torchrun: other commands would run several times, and are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import small_config, small_dataset
from typer.main import get_command

from anyrec.cli import app as programs
from anyrec.cli import one_process
from anyrec.cli.process import run_command
from anyrec.core.errors import InputError
from anyrec.core.launcher import copies
from anyrec.data.formats.write_json import write_json
from anyrec.recommender import Recommender
from anyrec.study.tune import tune
from tests.test_cli_names import commands_of

ROOT = Path(__file__).parent.parent
COMMANDS = [" ".join(path) for path, one in commands_of(get_command(programs.app)) if not hasattr(one, "commands")]


@pytest.fixture
def torchrun(monkeypatch):
    """Set the variables of the first of two processes."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def ended(program, capsys, *words: str) -> tuple[object, str]:
    """Run a program, and return its exit code and all that it prints."""
    sys.argv[1:] = words
    with pytest.raises(SystemExit) as end:
        run_command(program)
    return end.value.code, "".join(capsys.readouterr())


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_a_command_of_one_process_is_refused_before_its_arguments_are_read(command, torchrun, capsys):
    torchrun.setattr(sys, "argv", ["anyrec"])
    code, printed = ended(programs.app, capsys, *command.split(), "--no-such-option")
    assert code == 2 and f"{command}: a launcher has started 2 processes" in printed, printed
    assert "Only `anyrec train` runs under torchrun" in printed and "no-such-option" not in printed


def test_train_is_not_refused_and_inference_py_is(torchrun, capsys):
    torchrun.setattr(sys, "argv", ["anyrec"])
    assert "No such option" in ended(programs.app, capsys, "train", "--no-such-option")[1]
    for program, refused in ((programs.train_main, False), (programs.inference_main, True)):
        sys.argv[1:] = ["--no-such-option"]
        with pytest.raises(SystemExit):
            program()
        assert ("a launcher has started" in "".join(capsys.readouterr())) == refused


def test_only_the_first_process_of_a_machine_prints_the_refusal(torchrun, capsys):
    torchrun.setattr(sys, "argv", ["anyrec"])
    torchrun.setattr(one_process, "PATIENCE", 0.0)
    torchrun.setenv("RANK", "3")
    assert "a launcher" in ended(programs.app, capsys, "plugins")[1]  # the first one of a second machine
    torchrun.setenv("LOCAL_RANK", "1")
    assert ended(programs.app, capsys, "plugins") == (2, "")
    torchrun.delenv("LOCAL_RANK")
    assert ended(programs.app, capsys, "plugins") == (2, "")
    torchrun.setenv("WORLD_SIZE", "1")
    assert "hashed" in ended(programs.app, capsys, "plugins")[1]


def test_python_programs_get_an_error_for_a_study_and_a_note_on_a_lone_training(torchrun):
    with pytest.raises(InputError, match="a study is run by one process"):
        tune(small_config(), small_dataset(), trials=1)
    config = {"model": {"type": "popularity"}}
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    assert any("2 processes (WORLD_SIZE), and each trains a model alone" in note for note in recommender.notes)


@pytest.mark.parametrize(("size", "rank", "expected"), [("", "", 1), ("3", "", 1), ("x", "0", 1), ("3", "0", 3)])
def test_processes_of_a_launcher_are_counted_by_its_variables(size, rank, expected, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    assert copies() == expected


@pytest.mark.slow
def test_the_command_of_the_docs_trains_one_model_and_prints_once(tmp_path):
    write_json(small_dataset(), tmp_path / "data.json")
    evaluation = {"baselines": [], "report": False}
    config = small_config(name="together", training={"epochs": 2}, evaluation=evaluation)
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = ["-m", "anyrec", "train", "--config", "cfg.json", "--data", "data.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*launcher, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("epoch")] == ["1", "2"]
    assert done.stdout.count("saved: models/together/model") == 1
    assert len(Recommender.load(tmp_path / "models" / "together").recommend(["u010"], k=5)) == 5
