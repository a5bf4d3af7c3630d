"""What the package exports, and what the documentation shows of it, is there."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import anyrec

PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "ARCHITECTURE.md"])


def exports_for_type_checkers():
    """Name and module of every import in the TYPE_CHECKING block."""
    tree = ast.parse((ROOT / "anyrec" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_the_lists_of_exports_agree():
    assert sorted(anyrec.__all__) == anyrec.__all__ == list(anyrec._HOMES)
    assert {name: f"anyrec.{home}" for name, home in anyrec._HOMES.items()} == exports_for_type_checkers()
    for name in anyrec.__all__:
        assert getattr(anyrec, name) is not None
    assert set(anyrec.__all__) <= set(dir(anyrec))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = anyrec.nothing


@pytest.mark.parametrize("name", [name for name in anyrec.__all__ if name != "hookimpl"])  # an object of pluggy
def test_every_export_has_an_example(name):
    assert "Example" in getattr(anyrec, name).__doc__


def test_importing_the_package_loads_nothing_heavy():
    program = (
        "import anyrec, sys; from anyrec import NotFittedError, hookimpl\n"
        "assert not {'torch', 'pyarrow'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


IMPORT = re.compile(r"(?:>>> )?((?:from anyrec[\w.]* import|import anyrec)\b[^`\n#;]*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_that_the_documentation_shows_works(page):
    for line in map(str.strip, page.read_text(encoding="utf-8").splitlines()):
        for statement in IMPORT.findall(line) if "anyrec_length" not in line else ():
            exec(statement, {})


def test_the_page_on_plugins_takes_every_base_class_from_the_package_itself():
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"^from (anyrec[\w.]*) import", page, re.MULTILINE))
    modules -= {"anyrec.encoders.text"}  # a built-in component that an example derives from
    assert modules <= {"anyrec", "anyrec.testing", "anyrec_length.encoder"}
