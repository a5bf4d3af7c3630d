"""Reading a MovieLens-shaped ratings.csv through `data.sources`, compared with polars: CPU seconds and peak memory.

    python benchmarks/ratings_csv.py [--rows 2000000] [--folder FOLDER]

Polars reads the file and sorts it by user and time; anyrec reads, types, checks and splits it into users, items and
interactions. Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

PROGRAMS = {
    "polars": "import polars\npolars.read_csv(path).sort(['userId', 'timestamp'])",
    "anyrec": "from anyrec import Dataset\n"
    "columns = {'userId': 'user_id', 'movieId': 'item_id', 'rating': 'rating', 'timestamp': 'timestamp'}\n"
    "Dataset.from_sources({'data': {'sources': {'interactions': [{'path': path, 'columns': columns}]}}})",
}
MEASURE = """
import resource, sys, time
path = sys.argv[1]
{program}
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{{time.process_time():.2f}} s of CPU, {{used.ru_maxrss / 1024:.0f}} MB")
"""


def write(path: Path, rows: int) -> None:
    """Write ratings of 162,000 users and 62,000 items in random order."""
    rng = np.random.default_rng(0)
    columns = {
        "userId": rng.integers(1, 162_000, rows),
        "movieId": rng.integers(1, 62_000, rows),
        "rating": rng.integers(1, 11, rows) / 2,
        "timestamp": rng.integers(800_000_000, 1_570_000_000, rows),
    }
    pyarrow.csv.write_csv(pa.table(columns), path)


def main() -> None:
    """Write the file and run both programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "ratings.csv"
        write(path, options.rows)
        for name, program in PROGRAMS.items():
            code = MEASURE.format(program=program)
            done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
            print(f"{name}: {options.rows:,} rows, {done.stdout.strip()}")


if __name__ == "__main__":
    main()
