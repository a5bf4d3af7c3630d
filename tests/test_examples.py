"""Every script of examples/ runs, is short, prints the same each time and shows what it says; so does the notebook."""

import ast
import json
import runpy

import pytest
import torch
from conftest import ROOT

EXAMPLES = ROOT / "examples"
SERVERS = {"http_reranker.py"}
"""Started by tests/test_rules_docs.py: it needs a chat model to talk to."""
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in SERVERS)
MOST_LINES = 60


PRINTED: dict[str, str] = {}
"""What each script printed when it was run last."""


def run(name, capsys):
    """What the script prints to standard output."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    PRINTED[name] = capsys.readouterr().out
    return PRINTED[name]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The examples need no file of the repository, and no plugin that lies in the current folder."""
    monkeypatch.chdir(tmp_path)


def test_there_are_examples_and_each_says_how_to_run_it():
    assert len(SCRIPTS) >= 6
    for name in [*SCRIPTS, *SERVERS]:
        text = (EXAMPLES / name).read_text()
        assert len(text.splitlines()) <= MOST_LINES, name
        assert f"python examples/{name}" in (ast.get_docstring(ast.parse(text)) or ""), name


def test_examples_use_public_names_only():
    for name in SCRIPTS:
        for node in ast.walk(ast.parse((EXAMPLES / name).read_text())):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), f"{name}: {node.attr}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_prints_the_same_whatever_the_random_state(name, capsys):
    first = run(name, capsys)
    torch.manual_seed(123)
    assert first and run(name, capsys) == first


def test_examples_show_what_they_claim(capsys):
    def printed(name):
        return PRINTED.get(name) or run(name, capsys)

    assert "the loaded model returns the same items: True" in printed("train_from_pandas.py")
    metrics = {line[:12].strip(): line.split()[-3] for line in printed("evaluate_against_baselines.py").splitlines()}
    assert float(metrics["two towers"]) > float(metrics["ease"]) > float(metrics["popularity"])
    staged = printed("two_stage_pipeline.py").split("pipeline: stages")[1].splitlines()[1:5]
    kinds = [line.split(": ")[1].split(", ")[0] for line in staged]
    prices = [float(line.rsplit(", ", 1)[1]) for line in staged]
    assert len(set(kinds)) == 4 and max(prices) < 60, "one item of each category, each cheaper than 60"


@pytest.mark.slow
def test_the_notebook_is_valid_and_its_cells_run(capsys):
    notebook = json.loads((EXAMPLES / "tutorial.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    names: dict = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, "outputs are not kept in the repository"
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    printed = capsys.readouterr().out
    assert "the loaded model gives the same list: True" in printed and "height_in_cm" in printed
    assert names["scores"]["two towers"] > names["scores"]["popularity"]
