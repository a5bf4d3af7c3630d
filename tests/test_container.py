"""The Dockerfile and compose.yaml: what they copy and run exists, and nothing runs as root. No Docker is needed."""

import configparser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch

import pytest
from conftest import ROOT

LINES = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line.strip() and not line.startswith("#")]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


CHECK = importlib.util.spec_from_file_location("check_container", ROOT / "scripts" / "check_container.py")


def copied():
    """The files and folders of the repository that the build copies."""
    return [
        source
        for word, rest in STEPS
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


def test_the_copied_files_exist_and_are_enough_for_the_package():
    assert copied() and all((ROOT / source).exists() for source in copied())
    folders = {place.split("=")[1].strip() for place in SETUP["options"]["package_dir"].strip().splitlines()}
    assert folders <= set(copied())
    assert {SETUP["metadata"]["license_files"], "README.md", "setup.cfg", "pyproject.toml", "constraints.txt"} <= set(
        copied()
    )


def test_the_ignore_file_lets_through_the_copied_files_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    later = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert not any(fnmatch(source, rule.removeprefix("**/")) for source in copied() for rule in later)


def test_the_image_is_slim_runs_without_root_and_takes_the_cpu_build_of_torch():
    words = [word for word, _ in STEPS]
    bases = [rest for word, rest in STEPS if word == "FROM"]
    minor = {int(re.fullmatch(r"python:3\.(\d+)-slim.*", base.split(" AS ")[0])[1]) for base in bases}
    assert len(minor) == 1 and min(minor) >= 11
    user = next(rest for word, rest in reversed(STEPS) if word == "USER")
    assert user not in ("root", "0") and f"--create-home {user}" in "\n".join(LINES)
    assert words.index("USER") > max(n for n, word in enumerate(words) if word == "RUN")
    assert any("download.pytorch.org/whl/cpu" in rest for word, rest in STEPS if word == "ARG")
    torch = next(rest for word, rest in STEPS if word == "RUN" and "torch torchvision" in rest)
    assert '--index-url "$TORCH_INDEX"' in torch and "--constraint constraints.txt" in torch
    entry = next(rest for word, rest in STEPS if word == "ENTRYPOINT")
    assert entry == '["anyrec"]' and "anyrec = anyrec.cli.app:main" in SETUP["options.entry_points"]["console_scripts"]


def test_the_services_run_commands_that_exist_without_root_on_one_folder():
    yaml = pytest.importorskip("yaml")
    import typer

    from anyrec.cli import app as cli

    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    commands = typer.main.get_command(cli.app).commands
    assert services
    for service in services.values():
        program, command = service["entrypoint"]
        assert program == "anyrec" and command in commands
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "1000" in service["user"]
        assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service
        work = next(rest for word, rest in reversed(STEPS) if word == "WORKDIR")
        assert [volume.rpartition(":")[2] for volume in service["volumes"]] == [work]


@pytest.mark.slow
def test_the_copied_files_alone_make_a_package_with_every_module(tmp_path):
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / "source" / source, symlinks=True)
        else:
            (tmp_path / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / "source" / source)
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "wheel"]
    done = subprocess.run(
        [sys.executable, *map(str, command), str(tmp_path / "source")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (("anyrec", "anyrec"), ("encoders", "anyrec/encoders"), ("schemas", "anyrec/schemas")):
        for path in (ROOT / folder).glob("*.py" if folder != "schemas" else "*.json"):
            assert f"{package}/{path.name}" in names


def test_the_image_serves_the_mounted_model_by_options_that_exist():
    from typer.main import get_command

    from anyrec.cli.app import app

    commands = [rest for word, rest in STEPS if word == "CMD"]
    name, *arguments = json.loads(commands[-1])
    context = get_command(app).commands[name].make_context(name, arguments, resilient_parsing=True)
    assert str(context.params["model_path"]) == "/model" and str(context.params["events"]) == "/events"
    assert context.params["host"] == "0.0.0.0" and context.params["insecure"] is True
    assert "VOLUME" in [word for word, _ in STEPS] and ("EXPOSE", "8000") in [tuple(step) for step in STEPS]
    assert any('".[serve]"' in rest for word, rest in STEPS if word == "RUN")


def test_the_check_without_an_engine_reads_the_steps_and_the_values_of_variables():
    check = importlib.util.module_from_spec(CHECK)
    sys.modules[CHECK.name] = check
    CHECK.loader.exec_module(check)
    steps = check.instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert [list(step) for step in steps] == STEPS
    assert {word for word, _ in steps} <= {*["FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER"], *check.KEPT}
    values = {"PATH": "/bin", "EMPTY": ""}
    assert check.filled("/opt:$PATH:${PATH}:${EMPTY:-x}:${NONE:-1000:1000}", values) == "/opt:/bin:/bin:x:1000:1000"
    done = subprocess.run([sys.executable, CHECK.origin, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--build-arg" in done.stdout
