"""Run the steps of the Dockerfile without a container engine, and check the server that the image starts.

    python scripts/check_container.py                    # as root on Linux; downloads torch: some minutes, 6 GB of disk
    python scripts/check_container.py --build-arg TORCH_INDEX=...     # as for `docker build`

The steps are read from the Dockerfile and run as they are written, in a root of their own: an overlay of this machine's
system folders, in which what they write is thrown away in the end. A stage that is from `python:3.N` gets the
`python3.N` of this machine. The image then trains a model as its user, and serves it as process 1 of its own process
and network namespaces, with the volumes, first as the Dockerfile says and then as compose.yaml does. Checked are the
answers of the server, its user, that the model can be mounted read-only, HEALTHCHECK, and the end by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSIDE = "--inside"  # the script starts itself again in namespaces, in which it mounts the roots
SYSTEM = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr", "var"}
"""Folders of this machine that the root of a stage shows. The others are there, and empty."""
KEPT = ("VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")
"""Instructions that make settings of the image."""
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = re.compile(r"(?i)(https?|no|all)_proxy|PIP_CERT|PIP_DEFAULT_TIMEOUT|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE")
"""Variables of this machine that its network needs."""
START, STOP = 120, 10  # seconds: until the server is ready, and in which `docker stop` expects its end


@dataclass
class Stage:
    """A stage of the build: its root, and the settings that its steps made."""

    base: str
    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "root"
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The root folder."""
        return self.folder / "root"

    def run(self, command: Sequence[str], **options: str) -> None:
        """Run a command in the root. Raises CalledProcessError if it fails."""
        network = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        known = {"HOME": "/root", "PIP_CONFIG_FILE": "/dev/null", **network, **self.arguments, **self.environment}
        moved = ["sh", "-c", 'cd "$0" && exec "$@"', self.directory, *command]
        subprocess.run(["chroot", self.root, *moved], env=known | options, check=True)

    def inside(self, path: str) -> Path:
        """Return the place of a path, relative to the working directory of the stage, on this machine."""
        return self.root / os.path.normpath(os.path.join(self.directory, path)).lstrip("/")


def main() -> int:
    """Build and check. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as for `docker build`")
    parser.add_argument("--work", type=Path, help="folder for the roots; by default a temporary one")
    parser.add_argument(INSIDE, type=Path, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if sys.platform != "linux" or os.geteuid():
        print("this needs root on Linux; with a container engine: docker build --tag anyrec .", file=sys.stderr)
        return 2
    if parsed.inside is None:
        with tempfile.TemporaryDirectory(dir=parsed.work) as folder:  # removed where none of the mounts is there
            namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
            command = [sys.executable, *sys.argv, INSIDE, folder]
            return subprocess.run(["unshare", *namespaces, *command], check=False).returncode
    began = time.monotonic()
    image = build(parsed.inside, dict(one.split("=", 1) for one in parsed.build_arg))
    report(f"{time.monotonic() - began:.0f} s for all steps of the Dockerfile")
    check(image, parsed.inside)
    report(f"{time.monotonic() - began:.0f} s for everything: no failure")
    return 0


# The build


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the word and the rest of each instruction of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()
    ]


def build(folder: Path, given: Mapping[str, str]) -> Stage:
    """Carry out a Dockerfile. Returns its last stage.

    Args:
        folder: Where the roots are made.
        given: Build arguments, which replace the defaults of ARG.
    """
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        report(f"{word} {rest}")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name or str(len(stages))] = new_stage(base, folder / str(len(stages)))
            continue
        assert stage is not None
        if word == "ARG":
            name, _, default = rest.partition("=")
            stage.arguments[name] = given.get(name, default)
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.environment[name] = filled(value, stage.environment)
        elif word == "WORKDIR":
            stage.directory = rest
            stage.inside(".").mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            copy(stage, rest, stages)
        elif word == "RUN":
            stage.run(["sh", "-c", rest])
        elif word in KEPT:
            stage.settings[word] = rest
        else:
            raise SystemExit(f"this script does not know the instruction {word}")
    assert stage is not None
    return stage


def new_stage(base: str, folder: Path) -> Stage:
    """Return a stage that is from an image of Python: an overlay of this machine's system folders with its Python."""
    version = re.fullmatch(r"python:(3\.\d+)-slim.*", base)
    if version is None:
        raise SystemExit(f"this script does not know the image {base}")
    found = [
        shutil.which(f"python{version[1]}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version[1]}.*/bin/python3")),
    ]
    tried = [
        subprocess.run([one or "false", "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True)
        for one in found
    ]
    prefix = next((Path(one.stdout.strip()) for one in tried if one.returncode == 0), None)
    if prefix is None:
        raise SystemExit(f"python{version[1]}, which {base} has, is not on this machine")
    for name in ("written", "work", "root"):
        (folder / name).mkdir(parents=True)
    for one in Path("/").iterdir():
        if one.is_dir() and not one.is_symlink() and one.name not in SYSTEM:
            hidden = folder / "written" / one.name
            hidden.mkdir()
            os.setxattr(hidden, "trusted.overlay.opaque", b"y")
    layers = f"lowerdir=/,upperdir={folder}/written,workdir={folder}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, folder / "root"], check=True)
    stage = Stage(base, folder)
    for place in ("/proc", "/dev", "/sys", *([str(prefix)] if not (stage.root / str(prefix)[1:]).exists() else [])):
        stage.inside(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--rbind", place, stage.inside(place)], check=True)
    stage.inside("/tmp").chmod(0o1777)
    for name in ("python", "python3"):
        place = stage.inside(f"/usr/local/bin/{name}")
        place.unlink(missing_ok=True)
        place.symlink_to(prefix / "bin" / f"python{version[1]}")
    for name in ("passwd", "group"):  # an image of Python has no users of its own
        place = stage.inside(f"/etc/{name}")
        lines = [line for line in place.read_text().splitlines() if not 1000 <= int(line.split(":")[2]) < 60_000]
        place.write_text("\n".join(lines) + "\n")
    return stage


def copy(stage: Stage, rest: str, stages: Mapping[str, Stage]) -> None:
    """Carry out COPY: from the repository, or from another stage."""
    *sources, target = rest.split()
    origin = ROOT
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).partition("=")[2]].root
    for source in sources:
        found = origin / source.lstrip("/")
        place = stage.inside(target) / found.name if target.endswith(("/", ".")) else stage.inside(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        kind = ["--no-target-directory"] if found.is_dir() else []
        subprocess.run(["cp", "--archive", "--no-preserve=ownership", *kind, found, place], check=True)


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of its variables: $NAME, ${NAME}, ${NAME:-default}."""
    pattern = r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})"
    return re.sub(pattern, lambda one: values.get(one[1] or one[2]) or one[3] or "", text)


# What the image does


@dataclass
class Container:
    """A command that runs in a copy-on-write view of an image, as process 1."""

    image: Stage
    process: subprocess.Popen[bytes]
    number: int

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run another command in the container, as `docker exec` does."""
        entered = ["nsenter", "--target", str(self.number), "--mount", "--pid", "--net"]
        return subprocess.run(
            [*entered, *in_root(self.image, command)], env=self.image.environment, capture_output=True, text=True
        )

    def answer(self, path: str, body: object = None) -> tuple[int, str]:
        """Return status and body of a request from within the container's network."""
        code = (
            "import sys, urllib.request as u, urllib.error as e\n"
            "data = sys.argv[2].encode() or None\n"
            "asked = u.Request('http://127.0.0.1:8000' + sys.argv[1], data, {'content-type': 'application/json'})\n"
            "try: found = u.urlopen(asked)\n"
            "except e.HTTPError as error: found = error\n"
            "print(found.status, found.read().decode())"
        )
        done = self.run(["python", "-c", code, path, "" if body is None else json.dumps(body)])
        status, _, text = done.stdout.partition(" ")
        return int(status or 0), text

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM to process 1, as `docker stop` does. Returns the exit status and the seconds until the end."""
        began = time.monotonic()
        os.kill(self.number, signal.SIGTERM)
        try:
            return self.process.wait(STOP), time.monotonic() - began
        except subprocess.TimeoutExpired:
            raise SystemExit(f"FAILED: the server did not end within {STOP} s of SIGTERM") from None


def in_root(image: Stage, command: Sequence[str]) -> list[str]:
    """Return a command that runs in the root of an image as its user."""
    users = [line.split(":") for line in image.inside("/etc/passwd").read_text().splitlines()]
    home = next(one[5] for one in users if image.user.split(":")[0] in (one[0], one[2]))
    moved = ["sh", "-c", 'cd "$0" && exec "$@"', image.directory, "env", f"HOME={home}", *command]
    return ["chroot", f"--userspec={image.user}", str(image.root), *moved]


@contextmanager
def container(image: Stage, command: Sequence[str], mounts: Sequence[Sequence[str]]) -> Iterator[Container]:
    """Run a command as process 1 of its own namespaces within the block.

    Args:
        image: The image.
        command: What to run.
        mounts: Arguments of `mount` before the start, only for this container.
    """
    script = "\n".join(
        [
            "set -e",
            *(shlex.join(["mount", *one]) for one in mounts),
            f"mount -t proc proc {shlex.quote(str(image.root))}/proc",
            "ip link set lo up",
            shlex.join(["exec", *in_root(image, command)]).replace("'exec'", "exec"),
        ]
    )
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    process = subprocess.Popen([*namespaces, "sh", "-c", script], env=image.environment)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (found := children.read_text().split()):
            time.sleep(0.01)
        yield Container(image, process, int(found[0]))
    finally:
        process.kill()
        process.wait()


def check(image: Stage, folder: Path) -> None:
    """Train a model by the image, and check the server that it starts. Raises SystemExit for a failure."""
    entry = json.loads(image.settings["ENTRYPOINT"])
    image.run(["sh", "-c", "install --directory --owner anyrec /work && ldconfig -p | grep -q libgomp.so.1"])
    data = ["planted", "data.json", "--users", "200", "--items", "100"]
    for command in (
        ["synth", *data],
        ["train", "--data", "data.json", "--set", "name=shop", "--set", "training.epochs=1"],
    ):
        done = subprocess.run(in_root(image, [*entry, *command]), env=image.environment, check=False)
        expect(done.returncode == 0, f"{' '.join(command)} by the user {image.user}")
    model = folder / "model"
    model.mkdir()
    subprocess.run(["cp", "--archive", f"{image.inside('models/shop')}/.", model], check=True)
    image.inside("/model").mkdir()
    volume = ["--bind", "--options", "ro", str(model), str(image.inside("/model"))]
    serves(image, [*entry, *json.loads(image.settings["CMD"])], [volume], "Dockerfile")
    as_composed(image, folder)


def serves(image: Stage, command: Sequence[str], mounts: Sequence[Sequence[str]], name: str) -> None:
    """Check a server that an image starts."""
    healthy = json.loads(image.settings["HEALTHCHECK"].partition("CMD ")[2])
    began = time.monotonic()
    with container(image, command, mounts) as running:
        first = running.run(healthy).returncode
        while (last := running.run(healthy).returncode) and time.monotonic() < began + START:
            if running.process.poll() is not None:
                raise SystemExit(f"FAILED: {name}: the server ended with status {running.process.returncode}")
            time.sleep(0.5)
        expect(
            bool(first) and not last,
            f"{name}: HEALTHCHECK fails before the start, and not {time.monotonic() - began:.0f} s later",
        )
        user = running.run(
            ["sh", "-c", "id -u; cat /proc/1/status | grep ^Uid; touch /model/x 2>&1; touch /opt/anyrec/x 2>&1"]
        )
        expect(user.stdout.split()[0] == "1000" and "Uid:\t1000" in user.stdout, f"{name}: process 1 is of user 1000")
        expect(user.stdout.count("touch:") == 2, f"{name}: the model and the program cannot be written")
        status, text = running.answer("/v1/recommend", {"user_id": "user0", "k": 5})
        expect(status == 200 and len(json.loads(text)["items"]) == 5, f"{name}: a list of 5 items ({status})")
        event = {"event_id": "e1", "user_id": "user0", "item_id": json.loads(text)["items"][0]["item_id"]}
        expect(running.answer("/v1/events", {"events": [event]})[0] == 200, f"{name}: an event is accepted")
        code, seconds = running.stop()
        expect(
            code in (0, 128 + signal.SIGTERM), f"{name}: SIGTERM ends process 1 in {seconds:.1f} s with status {code}"
        )


def as_composed(image: Stage, folder: Path) -> None:
    """Check the server as compose.yaml starts it: a read-only root, one folder, and no others."""
    import yaml

    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["serve"]
    values = {"MODEL": "models/shop"}
    command = [filled(one, values) for one in [*service["entrypoint"], *service["command"]]]
    user = filled(service["user"], values)
    composed = replace(image, user=user, environment=image.environment | service["environment"])
    work = folder / "work"
    subprocess.run(["cp", "--archive", image.inside("/work"), work], check=True)
    shutil.rmtree(work / "models" / "shop" / "events", ignore_errors=True)
    root = str(image.root)
    mounts = [
        ["--rbind", root, root],
        ["--options", "remount,bind,ro", root],
    ]  # before the others, which can be written
    mounts += [["-t", "tmpfs", "tmpfs", root + place] for place in service["tmpfs"]]
    mounts += [["--bind", str(work), root + one.rpartition(":")[2]] for one in service["volumes"]]
    serves(composed, command, mounts, "compose.yaml")


def expect(fulfilled: bool, what: str) -> None:
    """Report a check. Raises SystemExit if it failed."""
    if not fulfilled:
        raise SystemExit(f"FAILED: {what}")
    report(f"ok: {what}")


def report(text: str) -> None:
    """Print a line at once, between the output of the steps."""
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
