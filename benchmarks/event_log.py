"""Reading the log of a server as a dataset, compared with a table of the same events.

    python benchmarks/event_log.py [--events 1000000]

The log has four files, and a user who was forgotten. Each reader runs in a process of its own, three times.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from common import argument_parser

FILES = 4
PROGRAM = """
import sys, time
from anyrec.core.config import DataConfig
from anyrec.data.dataset import Dataset
path, columns = sys.argv[1], {name: name for name in ("user_id", "item_id", "interaction_type", "timestamp")}
started, used = time.perf_counter(), time.process_time()
data = READ
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 2**20
print(time.process_time() - used, time.perf_counter() - started, peak, len(data.interactions))
"""
SOURCES = 'Dataset.from_sources({"data": {"sources": {"interactions": [{"path": path%s}]}}})'
READERS = {
    "a table of data.sources": ("table/interactions.jsonl", SOURCES % ', "columns": columns'),
    "a folder with interactions.jsonl": ("table", 'Dataset.read(path, DataConfig(unknown_ids="keep"))'),
    "the log": ("log", "Dataset.read(path)"),
    "the log in data.sources": ("log", SOURCES % ""),
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), events)
        base = 0.0
        for name, (path, read) in READERS.items():
            command = [sys.executable, "-c", PROGRAM.replace("READ", read), f"{folder}/{path}"]
            runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
            used, seconds, peak, count = min([float(one) for one in run.split()] for run in runs)
            base = base or used
            ratio = f"{used / base:.2f}x"
            print(f"{name:33} {used:5.2f} s of CPU ({ratio}) {seconds:5.2f} s {peak:5.2f} GiB {count:,.0f}", flush=True)


def write(folder: Path, events: int) -> None:
    """Write a log, and a table with the same lines."""
    draw, log = random.Random(0), folder / "log"
    for one in (log / "records", folder / "table"):
        one.mkdir(parents=True)
    (log / "records" / "events-000001.jsonl").write_text('{"removed_users": ["u3"], "time": 1.0}\n')
    with (folder / "table" / "interactions.jsonl").open("wb") as table:
        for number in range(FILES):
            lines = b"".join(msgspec.json.encode(event(draw, n)) + b"\n" for n in range(events // FILES))
            (log / f"events-{number + 1:06d}.jsonl").write_bytes(lines)
            table.write(lines)


def event(draw: random.Random, number: int) -> dict[str, str | float]:
    return {
        "event_id": draw.randbytes(16).hex(),
        "user_id": f"u{draw.randrange(50_000)}",
        "item_id": f"i{draw.randrange(20_000)}",
        "interaction_type": "view",
        "recommendation_id": draw.randbytes(16).hex(),
        "timestamp": 1.79e9 + draw.random() * 1e6,
        "received": 1.79e9 + number,
    }


if __name__ == "__main__":
    main()
