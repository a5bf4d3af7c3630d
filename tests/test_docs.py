"""The documentation describes everything that a user can name, without broken links or outdated parts."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ROOT

import anyrec

sys.path.insert(0, str(ROOT / "scripts"))
import generate_docs
import reference_commands

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md")]
OUTSIDE += [ROOT / "benchmarks" / name for name in ("ARENA.md", "RESULTS.md")]
FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def name(path):
    return path.relative_to(ROOT).as_posix()


def text(page):
    return (DOCS / page).read_text(encoding="utf-8")


def rows(page):
    """The texts of the first cells of all tables of a page."""
    return {line.split("|")[1].strip().strip("`") for line in text(page).splitlines() if line.startswith("| ")}


def headings(path):
    """The anchors of a page, as its site has them."""
    found, seen = set(), {}
    for line in FENCED.sub("", path.read_text(encoding="utf-8")).splitlines():
        if match := re.match(r"#{1,6} (.*)", line):
            title = re.sub(r"&\w+;|`", "", match[1])
            anchor = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())
            seen[anchor] = seen.get(anchor, -1) + 1
            found.add(f"{anchor}_{seen[anchor]}" if seen[anchor] else anchor)
    return found


# -- completeness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generate_docs.PAGES)
def test_generated_parts_are_those_that_the_code_gives(page, monkeypatch):
    monkeypatch.setenv("ANYREC_NO_PLUGINS", "1")
    assert generate_docs.generated(page) == text(page), "run `make docs`"


def test_every_config_key_is_documented():
    from pydantic import BaseModel

    from anyrec.core import config

    documented = rows("config.md")
    for section in vars(config).values():
        if (
            isinstance(section, type)
            and issubclass(section, BaseModel)
            and section.__module__.startswith(config.__name__)
        ):
            for key in section.model_fields:
                assert key in documented, f"docs/config.md has no row for {section.__name__}.{key}"


def test_every_component_and_each_of_its_options_is_documented(monkeypatch):
    from anyrec.core.discovery import discover

    monkeypatch.setenv("ANYREC_NO_PLUGINS", "1")
    for plugin in discover().plugins():
        assert plugin.doc and f"### `{plugin.type}`" in text("components.md")
        for key, field in plugin.load().Params.model_fields.items():
            assert field.description, f"{plugin.kind} {plugin.type}: the option {key} has no description"


def test_every_hook_is_documented():
    from anyrec.core.hooks import Hooks

    hooks = [hook for hook in vars(Hooks) if hook.startswith("anyrec_")]
    assert len(hooks) >= 10 and not [hook for hook in hooks if f"`{hook}`" not in text("plugins.md")]
    assert "::: anyrec.core.hooks.Hooks" in text("api.md")


def test_every_command_and_option_is_documented():
    page = text("cli.md")
    for command, found in reference_commands.all_commands().items():
        assert f"## anyrec {command}\n" in page
        assert found.help, command
        for parameter in found.params:
            assert parameter.help, f"anyrec {command}: {parameter.name} has no help"
            for option in (*parameter.opts, *parameter.secondary_opts) if parameter.param_type_name == "option" else ():
                assert "_" in option or f"`{option}`" in page, f"anyrec {command}: {option}"


def test_every_metric_is_defined_and_documented():
    from anyrec.core.config.training import RANKING_METRICS
    from anyrec.evaluation.classification import Classification
    from anyrec.evaluation.definitions import METRICS

    of = {kind: {one.name for one in METRICS if one.kind == kind} for kind in ("ranks", "lists", "classification")}
    assert of["ranks"] == {"auc", *(f"{metric}@k" for metric in RANKING_METRICS)}
    assert of["classification"] == set(Classification.__dataclass_fields__) & {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "auc",
    }
    shown = set(re.findall(r'found\[f"(\w+)@\{k\}"\]', (ROOT / "anyrec/evaluation/list_metrics.py").read_text()))
    assert of["lists"] == {f"{metric}@k" for metric in shown} and len(shown) >= 7
    assert {one.name for one in METRICS} <= rows("metrics.md")


def test_every_environment_variable_is_documented():
    files = [
        path for folder in ("anyrec", "encoders", "interaction", "classifier") for path in (ROOT / folder).rglob("*.py")
    ]
    used = {match for path in files for match in re.findall(r"\bANYREC_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    assert used and not [variable for variable in used if f"`{variable}" not in text("cli.md")]


def test_everything_that_is_exported_is_on_the_page_of_the_api():
    assert set(re.findall(r"^::: anyrec\.(\w+)$", text("api.md"), re.MULTILINE)) == set(anyrec.__all__)


# -- links and code ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, *OUTSIDE], ids=name)
def test_links_lead_to_files_and_headings_that_are_there(path):
    for target in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"https?://|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        assert file.exists(), f"{name(path)}: {target}"
        assert not anchor or anchor in headings(file), f"{name(path)}: {target}"


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=name)
def test_json_that_is_shown_is_json(path):
    for block in re.findall(r"^```json\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        try:
            json.loads(block)
        except json.JSONDecodeError:  # or a document in each line
            for line in block.splitlines():
                json.loads(line)


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r"(?:: |- )([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {path.relative_to(DOCS).as_posix() for path in PAGES} <= set(listed)


# -- the site ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra `docs` is not installed")
def test_the_site_is_built_without_network_and_loads_nothing_from_elsewhere(tmp_path):
    import os

    nowhere = {f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS")}
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:)?//", page.read_text())
        assert not loaded, page.name
    assert (tmp_path / "site" / "search" / "search_index.js").is_file(), "search works without a server"
