"""Reading and validating a large JSON of all feature groups, beside a bare parse of the same file. One process a reader.

python benchmarks/read.py [--interactions 1000000 --users 90000 --items 10000]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=90_000)
    parser.add_argument("--items", type=int, default=10_000)
    sizes = parser.parse_args()
    from anyrec.data.synthetic.generate import generate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        generate(users=sizes.users, items=sizes.items, interactions=sizes.interactions).write(path, images=False)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        base = None
        for name, body in READERS.items():
            first = body.split(";")[0].removeprefix("import ").removeprefix("from ").split(" ")[0]
            runs = []
            for _ in range(3):
                program = PROGRAM.format(first=first, body=body)
                done = subprocess.run(
                    [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
                )
                runs.append(tuple(map(float, done.stdout.split())))
            seconds, peak = min(runs)[0], min(run[1] for run in runs)
            base = base or (seconds, peak)
            print(
                f"{name:22} {seconds:6.2f} s ({seconds / base[0]:.2f}x)   peak {peak:5.2f} GiB ({peak / base[1]:.2f}x)",
                flush=True,
            )


if __name__ == "__main__":
    main()
