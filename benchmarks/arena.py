"""The arena: the default config against every classical model, on every data set, under every protocol.

    python benchmarks/arena.py [--data ml-100k,ml-1m] [--protocol P1,P2,P3,cold-items,cold-users,new-users]
        [--seeds 0,1,2] [--only default,ease] [--trials 40] [--set key=value] [--out FOLDER] [--report [FILE]]
    python benchmarks/arena.py --quick
    python benchmarks/arena.py --no-run --report

The data sets are the folders of ANYREC_DATA. Each run (a model on one split) is a process of its own, one at a time.
Its record is added to FOLDER/results.jsonl as soon as it is complete, so an interrupted arena continues where it was.
A run with a record of the same version of the package is not repeated (`--again` repeats it; `--any-version` accepts
records of other versions). `--set` changes the default config, to compare a changed config with it.

The first table is printed. `--report` writes the whole page, by default benchmarks/ARENA.md, and then also the rows of
README.md; `--no-run` only reads records. `--quick` runs ML-100K under all protocols and MovieLens latest-small under
P2, with one seed, one cut, and few trials, in under ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from arena_cold import COLD, can_score
from arena_protocols import PROTOCOLS, load, names_of_data
from arena_report import read_records, readme_rows, render, summary, with_rows
from arena_task import DEFAULT, LIGHTGCN, WHOLE, Task
from common import DATA, ROOT, argument_parser, names

from anyrec.core.contracts import Classical
from anyrec.core.discovery import discover
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset

PAGE, README = ROOT / "benchmarks" / "ARENA.md", ROOT / "README.md"
TRIALS = 40
"""Most fits for the options of a classical model: more than the product uses, so that the options are the best ones."""
QUICK_TRIALS = 3
QUICK = {"ml-100k": (*PROTOCOLS, *COLD), "ml-latest-small": ("P2",)}
"""The protocols of each data set in a quick run."""
SLOW = ("bpr_mf", LIGHTGCN)
"""Models that a quick run omits."""
PACKAGES = ("torch", "numpy", "scipy", "implicit")


def main() -> None:
    arguments = parse()
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    failed = [] if arguments.no_run else [task.key for task in plan(arguments) if not attempt(task, arguments)]
    records = read_records(folder)
    if not records:
        raise SystemExit(f"There are no records in {folder}. Is ANYREC_DATA ({DATA}) the folder of data sets?")
    print(summary(records, folder))
    if arguments.report is not None:
        arguments.report.write_text(render(records, folder), encoding="utf-8")
        if arguments.report == PAGE:
            README.write_text(with_rows(README.read_text(encoding="utf-8"), readme_rows(records, folder)), "utf-8")
        print(f"The page is {arguments.report}.")
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(failed)}")


def parse() -> argparse.Namespace:
    """Return the options of the command."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", help="names of data sets, between commas")
    parser.add_argument("--protocol", help="names of protocols, between commas")
    parser.add_argument("--seeds", help="seeds of the default config, between commas; by default 0,1,2")
    parser.add_argument("--only", help="names of models, between commas: default, lightgcn, or a classical model")
    parser.add_argument("--trials", type=int, help=f"most fits to tune a classical model; by default {TRIALS}")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="change of the default config")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true", help="repeat runs that are done")
    parser.add_argument("--any-version", action="store_true", help="do not repeat runs of another version")
    parser.add_argument("--no-run", action="store_true", help="only read the records")
    parser.add_argument("--out", type=Path, help="folder of the records; by default runs/arena")
    parser.add_argument("--report", type=Path, nargs="?", const=PAGE, help="write the page")
    arguments = parser.parse_args()
    if arguments.out is None:
        arguments.out = ROOT / "runs" / ("arena-quick" if arguments.quick else "arena")
    arguments.trials = arguments.trials or (QUICK_TRIALS if arguments.quick else TRIALS)
    return arguments


def plan(arguments: argparse.Namespace) -> Iterator[Task]:
    """Yield the tasks, cell by cell, the default config first."""
    seeds = [int(seed) for seed in names(arguments.seeds, ["0"] if arguments.quick else ["0", "1", "2"])]
    data_names = names(arguments.data, list(QUICK) if arguments.quick else names_of_data())
    unknown = set(names(arguments.protocol, [])) - {*PROTOCOLS, *COLD}
    if unknown:
        raise SystemExit(
            f"Unknown protocols: {', '.join(sorted(unknown))}. Choose from {', '.join([*PROTOCOLS, *COLD])}."
        )
    for data in data_names:
        dataset = load(data)
        known = QUICK.get(data, ()) if arguments.quick else (*PROTOCOLS, *COLD)
        for protocol in names(arguments.protocol, known):
            if not (PROTOCOLS | COLD)[protocol].valid(dataset):
                continue
            for cut in cuts_of(protocol, arguments.quick):
                for model in models_of(dataset, protocol, arguments):
                    task = Task(data, protocol, cut, model, trials=arguments.trials)
                    if model == DEFAULT:
                        changed = replace(task, trials=None, overrides=tuple(arguments.overrides))
                        yield from (replace(changed, seed=seed) for seed in seeds)
                    else:
                        yield task


def cuts_of(protocol: str, quick: bool) -> tuple[str, ...]:
    """Return the names of the cuts of a protocol."""
    if protocol in COLD:
        return (WHOLE,)
    return PROTOCOLS[protocol].quick_cuts if quick else PROTOCOLS[protocol].cuts


def models_of(dataset: Dataset, protocol: str, arguments: argparse.Namespace) -> list[str]:
    """Return the models that are valid for a data set under a protocol: the default, LightGCN, the classical ones."""
    registry, found = discover(), [DEFAULT]
    timed = protocol != "P3" and dataset.column("timestamp") is not None
    content = any(name.split(".")[0] in ("text", "categorical") for name in dataset.features("item"))
    has = {"timestamps": timed, "content": content}
    for name in registry.names("classical"):
        cls = registry.get("classical", name)
        fits = all(has[need] for need in cls.needs) and (cls.most_items or len(dataset.items)) >= len(dataset.items)
        if fits and scores_differ(cls, protocol):
            found.append(name)
    if protocol == "P3":
        found.append(LIGHTGCN)
    if arguments.quick:
        found = [name for name in found if name not in SLOW]
    wanted = names(arguments.only, found)
    return [name for name in found if name in wanted]


def scores_differ(cls: type[Classical], protocol: str) -> bool:
    """Return whether a classical model can score the users of a protocol by more than popularity."""
    if protocol in COLD:
        return can_score(cls, protocol)
    return PROTOCOLS[protocol].histories or not cls.personal or cls.ranks_new_users


def attempt(task: Task, arguments: argparse.Namespace) -> bool:
    """Run a task in a process of its own, unless there is a record of it. Return whether it is done."""
    folder: Path = arguments.out
    code = code_version()
    if not arguments.again and is_done(task, folder, None if arguments.any_version else code):
        return True
    started = time.perf_counter()
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "arena_runs.py"),
        json.dumps(dataclasses.asdict(task)),
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with open(folder / f"{task.key}.log", "w") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
    wall = time.perf_counter() - started
    if status:
        tail = (folder / f"{task.key}.log").read_text(errors="replace").strip().splitlines()[-1:]
        print(f"{task.key}: failed ({status}) {' '.join(tail)}", flush=True)
        return False
    record = json.loads((folder / f"{task.key}.json").read_text())
    record |= {"wall": round(wall, 1), "code": code, **provenance()}
    with open(folder / "results.jsonl", "a", encoding="utf-8") as results:
        results.write(json.dumps(record) + "\n")
    print(
        f"{task.data} {task.protocol} {task.cut} {' '.join([task.model, *task.overrides])} seed {task.seed}: "
        f"ndcg@10 {record['ndcg@10']:.4f} recall@20 {record['recall@20']:.4f}; {wall:.0f} s, "
        f"{record['peak_gib']:.1f} GiB, {record['options']}",
        flush=True,
    )
    return True


def is_done(task: Task, folder: Path, code: str | None) -> bool:
    """Return whether there is a record of a task, made by the version `code` of the package (None: by any)."""
    if not (folder / f"{task.key}.npz").exists():
        return False
    return any(Task.of(record) == task and code in (None, record["code"]) for record in read_records(folder))


def code_version() -> str:
    """Return a hash of the package's files. Three of its folders are links."""
    digest = hashlib.sha256()
    folders = os.walk(ROOT / "anyrec", followlinks=True)
    for file in sorted(os.path.join(folder, name) for folder, _, found in folders for name in found):
        if file.endswith(".py"):
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:12]


def provenance() -> JsonObject:
    """Return the machine, the versions, the commit and the command, for the page."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "machine": f"{os.cpu_count()} cores ({processor()}), {memory:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "commit": git.stdout.strip() or "unknown",
        "command": " ".join(["python benchmarks/arena.py", *sys.argv[1:]]),
    }


def processor() -> str:
    """Return the name of the processor, or its architecture if the system does not say."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


if __name__ == "__main__":
    main()
