"""The commands of docs/how-to/your-export.md run, in their order, on the export that the page is about."""

import json
import re
import shlex
import shutil

import pytest
from conftest import ROOT
from small import call

PAGE = (ROOT / "docs" / "how-to" / "your-export.md").read_text(encoding="utf-8")
QUICK = ["--set", "training.epochs=2", "--set", "evaluation.report=false", "--set", "blend=null"]


@pytest.fixture
def export(tmp_path, monkeypatch):
    for path in (ROOT / "examples" / "shop_export").glob("*.csv"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run_and_print_what_it_shows(export):
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "anyrec"
        target = arguments[arguments.index(">") + 1] if ">" in arguments else None
        arguments = arguments[: arguments.index(">")] if target else arguments
        code, out, err = call(*arguments, *(QUICK if arguments[0] == "train" else []))
        assert code == 0, f"{command}: {err}"
        if target:
            (export / target).write_text(out)
            _check_printed(err)
            _change(export / target)
    assert "00" in out


def _check_printed(err):
    [shown] = re.findall(r"```text\n(orders.csv: .*?)```", PAGE, re.DOTALL)
    printed = {re.sub(r"\s+", " ", line) for line in err.splitlines()}
    for line in shown.splitlines():
        assert re.sub(r"\s+", " ", line) in printed, line


def _change(path):
    """Make the changes of the third step."""
    config = json.loads(path.read_text())
    [changes] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    for table in [*config["data"]["sources"]["interactions"], *config["data"]["sources"]["items"]]:
        for name in changes.keys() & table["columns"].keys():
            table["columns"][name] = changes.pop(name)
    assert not changes
    path.write_text(json.dumps(config))


def test_the_export_has_the_faults_that_the_page_names(export):
    articles = (export / "articles.csv").read_bytes().decode("cp1252")
    assert "ü" in articles and ",90 €" in articles and ";NA;" in articles
    numbers = [line.split(";")[0] for line in articles.splitlines()[1:]]
    assert len(numbers) == len(set(numbers)) + 1 and numbers[0] == "00001"
