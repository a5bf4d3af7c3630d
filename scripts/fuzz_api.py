"""Check a server against its own OpenAPI document by schemathesis, with all checks, until N requests were sent.

    python scripts/fuzz_api.py --model FOLDER --requests 20000

schemathesis is part of the extra `test`; `--program` names the command `st` of another environment.

The model's folder is copied, so that changed records and events leave nothing behind. Every run has another seed, which
is printed. A request that is valid by the document can still not fit the model: a condition on a feature that it does
not have, a text that is no picture. Such a request is answered with status 422, which the document names for every
route, so `positive_data_acceptance` accepts it here; all other checks are as schemathesis has them. Ends with status 1
after a run with a failure.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "405", "409", "413", "415", "422", "507"]
"""
GENERATED = re.compile(r"(\d[\d,]*) generated")
FAULTS = ("grep", "--line-buffered", "-E", '"error"|Traceback')
RELOAD = "/v1/reload"
RELOADS = 10  # a request for a reload, which loads the model, for that many others of an operation


def main(arguments: list[str] | None = None) -> int:
    """Run schemathesis until enough requests were sent. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model or a run")
    parser.add_argument("--requests", type=int, default=20_000, help="requests to send")
    parser.add_argument("--program", default="st", help="the command of schemathesis")
    parser.add_argument("--each", type=int, default=100, help="examples of each operation in one run")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful", help="phases of schemathesis")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run; each further one adds 1")
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copytree(parsed.model, Path(folder) / "model", ignore=shutil.ignore_patterns("events"))
        (Path(folder) / "schemathesis.toml").write_text(CONFIG)
        try:
            with running(model, Path(folder)) as address:
                return fuzz(address, Path(folder), parsed)
        finally:
            print((Path(folder) / "faults.log").read_text()[-5000:], file=sys.stderr)


def fuzz(address: str, folder: Path, parsed: argparse.Namespace) -> int:
    """Run schemathesis with one seed after another, with the options of the command line. Returns the exit status."""
    sent, seed, each = 0, parsed.seed, parsed.each
    while sent < parsed.requests:
        for paths, count in (("--exclude-path", each), ("--include-path", -(-each // RELOADS))):
            command = [
                parsed.program,
                "--config-file",
                "schemathesis.toml",
                "run",
                f"{address}/openapi.json",
                "--no-color",
            ]
            command += ["--checks", "all", paths, RELOAD, "--seed", str(seed), "--max-examples", str(count)]
            command += ["--phases", parsed.phases, "--continue-on-failure", "--generation-database", "none"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            found = GENERATED.search(done.stdout)
            if done.returncode or found is None:
                print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
                print(f"seed {seed}: failed after {sent:,} requests")
                return 1
            sent += int(found[1].replace(",", ""))
        print(f"seed {seed}: no failure, {sent:,} requests so far", flush=True)
        seed += 1
    return 0


@contextmanager
def running(model: Path, folder: Path) -> Iterator[str]:
    """Yield the address of a server that runs within the block. Its faults are in the file `faults.log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "anyrec", "serve", "--model_path", str(model), "--port", str(port)]
    command += ["--events", str(folder / "events"), "--image_root", str(folder)]
    with (
        (folder / "faults.log").open("w") as log,
        subprocess.Popen(FAULTS, stdin=subprocess.PIPE, stdout=log) as filtered,  # ends with its input
        subprocess.Popen(command, stderr=filtered.stdin) as server,
    ):
        try:
            wait_for(server, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a server answers. Raises SystemExit if it ends before."""
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return
        except OSError:  # it does not listen yet, or its model is being loaded (status 503)
            if server.poll() is not None:
                raise SystemExit("the server ended") from None
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
