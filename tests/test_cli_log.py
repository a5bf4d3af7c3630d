"""What a command prints besides its results: notes, warnings, steps; versions; and that the library is silent."""

import json
import logging
import re

import pytest
from conftest import ROOT
from forked import run_program
from small import call, small_config, small_dataset

import anyrec
from anyrec.cli import app as cli
from anyrec.cli.terminal import log, terminal_log
from anyrec.recommender import Recommender

LENIENT = {"user_data": [{"user_id": "u000", "categorical": {"gruop": "a"}}]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    fitted = Recommender.from_config(small_config(model={"type": "popularity"})).fit(small_dataset(), progress=False)
    fitted.save(folder / "model")
    (folder / "request.json").write_text(json.dumps(LENIENT))
    return folder


def recommend(saved, *options):
    return call(
        "recommend",
        "--model-path",
        saved / "model",
        "--data",
        saved / "request.json",
        "--output",
        saved / "l.csv",
        *options,
    )


def test_quiet_prints_no_notes_and_verbose_also_prints_steps(saved):
    code, _, usual = recommend(saved)
    assert code == 0 and "note: /user_data/0/categorical/gruop" in usual and "loaded" not in usual
    assert recommend(saved, "--quiet")[2] == recommend(saved, "-q")[2] == ""
    code, _, steps = recommend(saved, "-v")
    assert code == 0 and re.search(r"anyrec: loaded .*model in \d", steps) and "anyrec: finished after" in steps
    assert usual in steps


def test_quiet_commands_on_data_print_no_notes(tmp_path):
    from anyrec.data.formats.write_json import write_json

    write_json(small_dataset(), tmp_path / "data.json")
    fewer = ("--set", "data.max_users=9", "--set", "data.unknown_ids=drop")
    for command in ("init", "validate", "describe", "doctor"):
        code, _, usual = call(command, tmp_path / "data.json", *fewer)
        assert code == 0 and "note: " in usual, command
        assert call(command, tmp_path / "data.json", *fewer, "-q")[2] == "", command


def test_notes_and_warnings_are_printed_by_the_log_alone():
    for path in (ROOT / "anyrec" / "cli").glob("*.py"):
        printed = re.findall(r"(?:err|out)\.print\(\s*f?\"(?:note|warning)", path.read_text())
        assert not printed, f"{path.name} prints what --quiet leaves out"


def test_the_log_is_as_it_was_after_a_command(saved):
    before = log.level, list(log.handlers)
    recommend(saved, "--quiet")
    assert (log.level, log.handlers) == before
    with pytest.raises(ValueError), terminal_log(verbose=True):
        raise ValueError
    assert (log.level, log.handlers) == before


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """`anyrec train` on a small file, with further options."""
    from anyrec.data.formats.write_json import write_json

    folder = tmp_path_factory.mktemp("train")
    write_json(small_dataset(), folder / "data.json")
    config = folder / "cfg.json"
    config.write_text(json.dumps(small_config(model={"type": "popularity"}, evaluation={"baselines": ["item_knn"]})))
    return lambda *options: call(
        "train", "--data", folder / "data.json", "--config", config, "--output", folder, *options
    )


def test_quiet_training_prints_where_the_model_is(train):
    code, out, err = train("-q")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()] == ["saved", "report"]


def test_verbose_training_prints_the_steps_and_the_same_results(train):
    code, usual, err = train()
    assert code == 0 and "anyrec." not in err
    code, out, err = train("--verbose")
    steps = re.findall(r"^anyrec\.[\w.]+: ([\w ]+) in \d+\.\d s$", err, re.MULTILINE)
    assert code == 0 and list(dict.fromkeys(steps)) == ["data read", "model fitted", "model saved", "report computed"]
    assert out == usual


def test_the_library_logs_warnings_and_prints_nothing(saved, caplog):
    program = f"""
from anyrec import Recommender
Recommender.load({str(saved / "model")!r}).recommend({LENIENT["user_data"]!r}, 2)
"""
    assert run_program("-c", program) == (0, "", "")
    with caplog.at_level(logging.WARNING, "anyrec"):
        Recommender.load(saved / "model").recommend(LENIENT["user_data"], 2)
    assert [record.name for record in caplog.records] == ["anyrec"] and "gruop" in caplog.text


def test_every_command_has_help_verbosity_and_unchanged_parameters():
    import inspect

    for command in cli.app.registered_commands:
        code, out, _ = call(command.callback.__name__, "--help")
        assert code == 0 and "--verbose" in out and "--quiet" in out
        assert not {"verbose", "quiet"} & set(inspect.signature(inspect.unwrap(command.callback)).parameters)
    assert not {"verbose", "quiet"} & set(inspect.signature(cli.train).parameters)


def test_the_version_is_that_of_the_package_and_completion_is_offered():
    assert call("--version") == (0, f"anyrec {anyrec.__version__}\n", "")
    assert "--install-completion" in call("--help")[1]


def test_the_package_says_that_it_has_types():
    assert (ROOT / "anyrec" / "py.typed").is_file()
    assert "anyrec = py.typed" in (ROOT / "setup.cfg").read_text()


def test_the_shell_completes_commands_and_options():
    program = "import sys; from anyrec.cli.app import main; sys.argv = ['anyrec']; main()"

    def completed(words):
        asked = {"_ANYREC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code, out, message = run_program("-c", program, **asked)
        assert code == 0, message
        return out.split()

    assert completed("anyrec tr") == ["train"]
    assert {"--top-k", "--trace", "--trust-plugins"} <= set(completed("anyrec recommend --t"))
