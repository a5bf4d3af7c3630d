"""Reading and validating a large JSON of all feature groups, compared with a bare parse of the same file.

    python benchmarks/read.py [--interactions 1000000 --users 90000 --items 10000]

Each reader runs in its own processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from common import argument_parser

from anyrec.data.synthetic.generate import generate

READERS = {
    "orjson.loads": "import orjson; data = orjson.loads(open(path, 'rb').read())",
    "json.loads": "import json; data = json.loads(open(path, 'rb').read())",
    "anyrec Dataset.read": "from anyrec.data.dataset import Dataset; data = Dataset.read(path)",
}
PROGRAM = """
import resource, sys, time
path = sys.argv[1]
import {first}
started = time.perf_counter()
{body}
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
RUNS = 3


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=90_000)
    parser.add_argument("--items", type=int, default=10_000)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        generate(users=sizes.users, items=sizes.items, interactions=sizes.interactions).write(path, images=False)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        base = None
        for name, body in READERS.items():
            seconds, peak = measure(body, path)
            base = base or (seconds, peak)
            ratios = seconds / base[0], peak / base[1]
            print(
                f"{name:22} {seconds:6.2f} s ({ratios[0]:.2f}x)   peak {peak:5.2f} GiB ({ratios[1]:.2f}x)", flush=True
            )


def measure(body: str, path: Path) -> tuple[float, float]:
    """Return the least seconds and the least peak memory in GiB of several processes that run a line of code."""
    first = body.split(";")[0].removeprefix("import ").removeprefix("from ").split(" ")[0]
    command = [sys.executable, "-c", PROGRAM.format(first=first, body=body), str(path)]
    runs = []
    for _ in range(RUNS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append([float(number) for number in done.stdout.split()])
    return min(run[0] for run in runs), min(run[1] for run in runs)


if __name__ == "__main__":
    main()
