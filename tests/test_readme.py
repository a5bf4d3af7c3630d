"""The commands, requests and Python code of README.md, the tutorial and the how-to guides work, in order.

Commands run in this process, in an empty folder, on less data and for fewer epochs than the page says. The code is run
as it is.
"""

import importlib
import os
import re
import shlex

import pytest
from conftest import ROOT
from small import call

PAGES = ["README.md", "docs/index.md", "docs/tutorial.md", "docs/how-to/new-users.md", "docs/how-to/production.md"]
PAGES += ["docs/synthetic-data.md"]
NEEDS = {"docs/tracking.md": ["mlflow", "tensorboard"], "docs/tuning.md": ["optuna"]}
"""Pages that need extras."""
PAGES += NEEDS
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```|`(anyrec [^`]*)`", re.DOTALL | re.MULTILINE)
SAVED_AS = re.compile(r"[Ss]ave [^\n]*? as `([\w.]+)`")
SMALLER = {
    "synth": ["--users", "60", "--items", "20", "--interactions", "900"],
    "tune": ["--trials", "2", "--set", "training.epochs=1", "--set", 'evaluation.baselines=["ease"]'],
    "train": ["--set", "training.epochs=1", "--set", 'evaluation.baselines=["ease"]'],
}
"""Options that are added to commands: later ones win."""
PROGRAMS = {"train.py": "train", "inference.py": "recommend"}
ELSEWHERE = {"pip", "make", "docker", "tensorboard"}
"""Programs whose lines are not run here: the tests are run by them."""
LARGE = {"demo", "convert", "experiment", "export", "push"}
"""Commands that need more: the next test, tests/test_containers.py, test_export.py and test_hub.py run them."""
COMPLETE = {"plugins", "schema"}
"""Commands that need no argument. Others are only mentioned if they stand alone."""


def steps(page):
    """Yield (language, text) of each code block and command, and (file name, content) of each request to save."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        language, block, inline = match.groups()
        if inline:
            yield "bash", inline
        elif language == "json" and (named := SAVED_AS.findall(text[: match.start()].rsplit("```", 1)[-1])):
            yield named[-1], block
        else:
            yield language, block


def commands(block):
    """The lines of a block as lists of words; a line that ends with a backslash goes on."""
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run(words):
    """Run a command of anyrec, made smaller; other programs are only checked."""
    program, *arguments = words
    if program == "python":
        arguments[0] = PROGRAMS[arguments[0]]
    elif program != "anyrec":
        assert program in ELSEWHERE, words
        return
    name = arguments[0]
    mentioned = len(arguments) == 1 and name not in COMPLETE
    if name.startswith("-") or name in LARGE or mentioned or "--demo" in arguments:
        assert call(name, "--help")[0] == 0, words
        return
    code, _, message = call(*arguments, *SMALLER.get(name, []))
    assert code == 0, f"{shlex.join(words)}: {message}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_and_the_code_of_a_page_work(page, tmp_path, monkeypatch, capsys):
    for package in NEEDS.get(page, []):
        pytest.importorskip(package, reason="pip install 'anyrec[mlflow,tensorboard,tune]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)  # `anyrec serve` would not end
    listen = importlib.import_module("anyrec.serving.http.run").listen
    monkeypatch.setattr("anyrec.serving.http.run.listen", lambda host, _: listen(host, 0))  # its port may be in use
    for name in ("configs", "datasets", "test_input.json"):
        os.symlink(ROOT / name, tmp_path / name)
    names: dict = {}
    ran = 0
    for language, block in steps(page):
        if language == "bash":
            for words in commands(block):
                run(words)
                ran += 1
        elif language == "python":
            exec(compile(block, page, "exec"), names)
        elif "." in language:
            (tmp_path / language).write_text(block)
    assert ran >= 3


@pytest.mark.slow
def test_the_demo_runs_on_less_data(tmp_path, monkeypatch):
    from anyrec.cli import demo

    made = demo.generate
    fewer = {"users": 120, "items": 20, "interactions": 2000}
    monkeypatch.setattr(demo, "generate", lambda **options: made(**{**options, **fewer}))
    training = {**demo.CONFIG["training"], "epochs": 1}
    monkeypatch.setitem(demo.CONFIG, "training", training)
    code, out, message = call("demo", "--folder", tmp_path / "demo")
    assert code == 0, message
    assert "never seen" in out and (tmp_path / "demo" / "report.html").is_file()


def test_the_readme_shows_every_command():
    from anyrec.cli import app as cli

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in cli.app.registered_commands:
        assert f"anyrec {command.callback.__name__}" in readme, command.callback.__name__
