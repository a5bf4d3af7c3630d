"""The shape of the code: imports point down, start-up is light, the package is whole."""

import ast
import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from import_graph import (
    LAZY,
    circles,
    graph,
    inner_imports,
    layer,
    long_functions,
    modules,
    package,
    private_accesses,
)

import anyrec

ROOT = Path(__file__).parent.parent
SHELVES = ("encoders", "interaction", "classifier")
COMPONENTS = ("anyrec.encoders.", "anyrec.interaction.", "anyrec.classifier.")
COMPONENTS += (
    "anyrec.retrieval.indexes.",
    "anyrec.retrieval.databases.",
    "anyrec.pipeline.sources.",
    "anyrec.pipeline.rules.",
    "anyrec.data.providers.",
    "anyrec.training.trackers.",
)


def wrong_edges():
    """Imports that point to a higher layer or are part of a circle, as `importer -> imported`."""
    edges = graph(package())
    assert not [name for name in edges if layer(name) < 0], "every folder of anyrec/ has a layer"
    together = {name: set(circle) for circle in circles(edges) for name in circle}
    return sorted(
        f"{name} -> {other}"
        for name, others in edges.items()
        for other in others
        if layer(other) > layer(name) or other in together.get(name, ())
    )


def test_imports_point_to_the_same_or_a_lower_layer_without_circles():
    assert wrong_edges() == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "scripts", "examples"])
def test_files_outside_the_package_have_no_circles_of_imports(folder):
    assert circles(graph(modules(ROOT / folder, ""))) == []


def test_imports_within_functions_are_of_the_packages_listed_for_it():
    wrong = [
        f"{name} imports {other}"
        for name, path in package().items()
        for other in inner_imports(path)
        if other.split(".")[0] not in LAZY and not (name.startswith("anyrec.cli") and other.startswith("anyrec."))
    ]
    assert wrong == []


def test_each_folder_names_its_modules_in_its_docstring():
    for name, path in package().items():
        if path.name != "__init__.py" or name == "anyrec":
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        names = [one.stem for one in path.parent.glob("*.py") if one.stem != "__init__"]
        names += [one.parent.name for one in path.parent.glob("*/__init__.py")]
        missing = [one for one in names if not re.search(rf"\b{one}\b", docstring)]
        assert not missing, f"the docstring of {name} does not say what these are for: {missing}"


def test_any_is_used_where_no_type_can_be_named():
    names = [node for path in package().values() for node in ast.walk(ast.parse(path.read_text()))]
    assert sum(isinstance(node, ast.Name) and node.id == "Any" for node in names) < 150


def test_architecture_names_files_that_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:anyrec|encoders|interaction|classifier|tests|plugins)/[\w/.]*)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_package_root_is_a_table_of_contents():
    entries = [path for path in (ROOT / "anyrec").iterdir() if not path.is_symlink() and path.name != "__pycache__"]
    assert len(entries) <= 19, sorted(path.name for path in entries)


def test_functions_are_short_and_private_attributes_stay_private():
    paths = list(package().values())
    assert len(found := [one for path in paths for one in long_functions(path, 60)]) <= 2, found
    assert len(found := [one for path in paths for one in private_accesses(path)]) <= 10, found


def test_the_frame_names_no_component():
    edges = graph(package())
    named = {
        f"{name} -> {other}"
        for name, others in edges.items()
        for other in others
        if other.startswith(COMPONENTS) and not name.startswith(COMPONENTS) and name != "anyrec"  # the list of exports
    }
    assert named == set()


def test_shelves_import_the_frame_and_never_by_their_bare_name():
    for shelf in SHELVES:
        for path in (ROOT / shelf).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    assert node.module.split(".")[0] not in SHELVES, path


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins"], ["validate", "datasets/synthetic/correlated_dataset.json", "--no-images"]]
)
def test_light_commands_load_no_torch(arguments):
    program = (
        "import sys; from anyrec.cli.app import main; sys.argv = ['anyrec', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'; assert 'sentence_transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_exported_name_exists():
    assert sorted(anyrec.__all__) == anyrec.__all__
    for name in anyrec.__all__:
        assert getattr(anyrec, name) is not None
    with pytest.raises(AttributeError):
        _ = anyrec.nothing


def test_the_packages_listed_are_the_folders_that_are_there():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = settings["options"]["packages"].split()
    there = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "anyrec").rglob("*.py")} | {
        f"anyrec.{shelf}" for shelf in (*SHELVES, "schemas")
    }
    assert set(listed) == there
    for shelf in (*SHELVES, "schemas"):
        assert (ROOT / "anyrec" / shelf).resolve() == ROOT / shelf


@pytest.mark.slow
def test_the_wheel_holds_all_and_works_elsewhere(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
    ]
    subprocess.run([*build, ROOT], check=True, capture_output=True)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path / "site")  # as pip does
    program = (
        "import anyrec, sys; assert anyrec.__file__.startswith(sys.argv[1]), anyrec.__file__\n"
        "from anyrec.core.discovery import discover; r = discover(); "
        "r.get('encoder', 'hashed'); r.get('fusion', 'simple')\n"
        "from pathlib import Path; assert (Path(anyrec.__file__).parent / 'schemas' / 'dataset.schema.json').exists()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert not {p.name for p in (tmp_path / "site").iterdir()} & {*SHELVES, "schemas", "datasets", "tests"}


def test_the_configs_schema_is_the_one_the_code_gives():
    from anyrec.core.discovery import discover
    from anyrec.core.schema import config_schema

    os.environ["ANYREC_NO_PLUGINS"] = "1"
    try:
        made = config_schema(discover())
    finally:
        del os.environ["ANYREC_NO_PLUGINS"]
    stored = json.loads((ROOT / "schemas" / "config.schema.json").read_text())
    assert json.loads(json.dumps(made)) == stored, "run `make schema`"


def test_the_example_configs_fit_the_schema():
    import jsonschema

    schema = json.loads((ROOT / "schemas" / "config.schema.json").read_text())
    for path in (ROOT / "configs").glob("*.json"):
        jsonschema.validate(json.loads(path.read_text()), schema)


def test_every_config_key_and_command_is_documented():
    from pydantic import BaseModel

    from anyrec.cli import app as cli
    from anyrec.core import config

    page = (ROOT / "docs" / "config.md").read_text()
    for section in vars(config).values():
        if (
            isinstance(section, type)
            and issubclass(section, BaseModel)
            and section.__module__.startswith("anyrec.core.config.")
        ):
            for key in section.model_fields:
                assert f"`{key}`" in page, f"docs/config.md does not describe {section.__name__}.{key}"
    readme = (ROOT / "README.md").read_text()
    for command in cli.app.registered_commands:
        assert f"anyrec {command.callback.__name__}" in readme, command.callback.__name__


@pytest.mark.slow
def test_train_runs_from_the_root_with_a_language_model(tmp_path, minilm):
    """The folder `datasets` at the root must not be taken for the library of that name."""
    command = [
        sys.executable, "train.py", "--data", "datasets/synthetic/correlated_dataset.json", "--output", tmp_path,
        "--set", "training.epochs=1", "--set", "features.text.type=sentence",
        "--set", f"features.text.model={minilm}", "--set", "features.image=null", "--set", "evaluation.report=false",
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "text.description (sentence)" in done.stdout
