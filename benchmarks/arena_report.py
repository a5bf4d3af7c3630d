"""The arena's tables, from the records of its runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arena_cold import COLD
from arena_protocols import PROTOCOLS
from arena_task import DEFAULT, LIGHTGCN, MAIN, METRICS, Task

from anyrec.core.types import JsonObject
from anyrec.evaluation.statistics import Interval, bootstrap_means, compare_paired, intervals

SHOWN = (MAIN, "recall@20")
"""The metrics of the first table."""
DETAILS = {"P1": (MAIN, "recall@10", "recall@20"), "P3": (MAIN, "ndcg@20", "recall@20")}
"""The metrics of the tables of a protocol, if published figures need others than SHOWN."""
LEVEL = (0.025, 0.975)
ROW = "| arena, "
"""Start of the arena's rows in README.md."""
TITLES = {name: protocol.title for name, protocol in PROTOCOLS.items()} | {
    name: protocol.title for name, protocol in COLD.items()
}
INTRODUCTION = """# Arena

The default config and every classical model on every data set, under every protocol that is valid for it. Nothing is
set in the default config but what the protocol needs: the split, the candidates and `data.unknown_ids`. Each classical
model is tuned on validation by `anyrec.training.tune` and fitted again on training and validation. LightGCN is
`benchmarks/lightgcn.py`, tuned on validation. All models of a row rank the same items for the same users, by the code
of `anyrec evaluate`: lists exclude seen items, and a seen target is a miss.

The ratio is the mean of the default over the mean of the best classical model. The latter is chosen by its test figure,
so the comparison does not flatter the default. Intervals contain 95 % of 2,000 bootstrap samples of users, the same for
both models. "above" and "below" mean that the interval of the ratio excludes 1. With several seeds a user's value is
the mean over seeds. P2 averages over its five cuts; a user who is tested in several cuts is drawn with all of them.

`make arena` runs all data sets with three seeds and writes this page. The line "runs" below states how long the runs of
this page took. Everything takes about 12 hours on two idle cores by estimate: a training of the default on ML-1M takes
a quarter of an hour, before the classical models are tuned, and there are 15 of them. An interrupted arena continues.
`make arena ARGS=--quick` takes eight and a half minutes on two idle cores.
"""


@dataclass(frozen=True)
class Entry:
    """A model in a cell, with all its cuts and seeds.

    Attributes:
        name: Name of the model, with the overrides of the config.
        records: The records of its runs.
        values: (users,) values of each metric; their mean is the figure of the cell (`pooled`).
    """

    name: str
    records: list[JsonObject]
    values: dict[str, np.ndarray]

    def mean(self, metric: str) -> float:
        """Return the figure of the cell."""
        return float(self.values[metric].mean())

    def seed_deviation(self, metric: str) -> float | None:
        """Return the standard deviation over seeds of the figure; None with one seed."""
        by_seed: dict[int, list[float]] = {}
        for record in self.records:
            by_seed.setdefault(record["seed"], []).append(record[metric])
        means = [np.mean(values) for values in by_seed.values()]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def total(self, key: str) -> float:
        """Return the sum over cuts of the mean over seeds of `seconds` or `tuning_seconds`."""
        return sum(record[key] for record in self.records) / len({record["seed"] for record in self.records})


@dataclass(frozen=True)
class Cell:
    """A data set under a protocol.

    Attributes:
        data: Name of the data set.
        protocol: Name of the protocol.
        cuts: Names of its cuts.
        users: Number of measured users.
        entries: The models that were measured on all of the cuts, by name.
        missing: Names of the models that were not.
    """

    data: str
    protocol: str
    cuts: list[str]
    users: int
    entries: dict[str, Entry]
    missing: list[str]

    @property
    def classical(self) -> list[Entry]:
        """The classical models."""
        return [entry for name, entry in self.entries.items() if name.split()[0] not in (DEFAULT, LIGHTGCN)]

    def best(self, metric: str) -> Entry | None:
        """Return the classical model with the best test figure."""
        return max(self.classical, key=lambda entry: entry.mean(metric), default=None)


def read_records(folder: Path) -> list[JsonObject]:
    """Return the last record of each task in results.jsonl."""
    path, found = folder / "results.jsonl", {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        record = json.loads(line)
        task = Task.of(record)
        found[task.data, task.protocol, task.cut, task.model, task.seed, task.overrides] = record
    return list(found.values())


def cells(records: Sequence[JsonObject], folder: Path) -> list[Cell]:
    """Return the cells of the records, in their order.

    Args:
        records: As `read_records` returns them.
        folder: The folder with the values of the users.
    """
    grouped: dict[tuple[str, str], list[JsonObject]] = {}
    for record in records:
        grouped.setdefault((record["data"], record["protocol"]), []).append(record)
    names = list(TITLES)
    order = sorted(grouped, key=lambda cell: names.index(cell[1]))
    return [_cell(data, protocol, grouped[data, protocol], folder) for data, protocol in order]


def _cell(data: str, protocol: str, records: list[JsonObject], folder: Path) -> Cell:
    cuts = sorted({record["cut"] for record in records})
    by_model: dict[str, list[JsonObject]] = {}
    for record in records:
        overrides = " ".join(record["overrides"])
        by_model.setdefault(f"{record['model']} {overrides}".strip(), []).append(record)
    entries, missing, users = {}, [], 0
    for name, own in by_model.items():
        if {record["cut"] for record in own} != set(cuts):
            missing.append(name)
            continue
        parts = [_cut_values([record for record in own if record["cut"] == cut], folder) for cut in cuts]
        values = {metric: pooled([(rows, found[metric]) for rows, found in parts]) for metric in METRICS}
        entries[name] = Entry(name, own, values)
        users = len(values[MAIN])
    if len({len(entry.values[MAIN]) for entry in entries.values()}) > 1:
        raise ValueError(f"{data} {protocol}: the models were measured on different users")
    return Cell(data, protocol, cuts, users, entries, missing)


def _cut_values(records: list[JsonObject], folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the users of a cut, and the mean over seeds of their values."""
    files = [np.load(folder / f"{Task.of(record).key}.npz") for record in records]
    return files[0]["users"], {metric: np.mean([file[metric].astype(float) for file in files], 0) for metric in METRICS}


def pooled(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return one value for each user, whose mean is the mean over cuts of the mean over the users of a cut.

    With c cuts of n_1, ..., n_c users, N different users and the mean M, a user has the value
    M + N * sum over their cuts k of (value - mean of k) / (c * n_k). A bootstrap over users then draws a user with all
    their cuts, and to first order with the number of users of each cut. With one cut these are the values themselves.

    Args:
        parts: For each cut the rows of its users, and their values.
    """
    everyone = np.unique(np.concatenate([rows for rows, _ in parts]))
    means = [values.mean() for _, values in parts]
    found = np.full(len(everyone), np.mean(means))
    for (rows, values), mean in zip(parts, means, strict=True):
        found[np.searchsorted(everyone, rows)] += len(everyone) * (values - mean) / (len(parts) * len(rows))
    return found


def ratio(mine: np.ndarray, other: np.ndarray) -> Interval:
    """Return the ratio of two means over the same users, with its paired bootstrap interval."""
    means = bootstrap_means(np.column_stack([mine, other]))
    ratios = means[:, 0] / np.maximum(means[:, 1], 1e-12)
    low, high = np.quantile(ratios, LEVEL)
    return Interval(float(mine.mean() / max(other.mean(), 1e-12)), float(low), float(high), len(mine))


def verdict(found: Interval) -> str:
    """Return whether the interval of a ratio is above 1, below 1, or contains it."""
    return "above" if found.low > 1 else "below" if found.high < 1 else "within noise"


def render(records: Sequence[JsonObject], folder: Path, title: str = INTRODUCTION) -> str:
    """Return the page: the summary, what was run where, and a table for each cell."""
    found = cells(records, folder)
    lines = [title, *_summary(found), "", *_provenance(records), ""]
    for cell in found:
        lines += [*_details(cell), ""]
    return "\n".join(lines)


def summary(records: Sequence[JsonObject], folder: Path) -> str:
    """Return the first table alone."""
    return "\n".join(_summary(cells(records, folder)))


def readme_rows(records: Sequence[JsonObject], folder: Path) -> list[str]:
    """Return one row for each protocol, for the table of README.md: task, anyrec, others."""
    rows: dict[str, tuple[list[str], list[str]]] = {}
    for cell in cells(records, folder):
        best = cell.best(MAIN)
        if DEFAULT in cell.entries and best is not None:
            ours, others = rows.setdefault(cell.protocol, ([], []))
            ours.append(f"{cell.data} {cell.entries[DEFAULT].mean(MAIN):.3f}")
            others.append(f"{cell.data} {best.name} {best.mean(MAIN):.3f}")
    return [
        f"{ROW}{protocol} ({TITLES[protocol]}), {MAIN}, nothing set | {', '.join(ours)} | best tuned classical model: "
        f"{', '.join(others)} |"
        for protocol, (ours, others) in rows.items()
    ]


def with_rows(page: str, rows: list[str]) -> str:
    """Return README.md with the arena's rows at the end of the table of `## Measured`, instead of former ones."""
    start = page.index("## Measured")
    lines = [line for line in page[start:].splitlines() if not line.startswith(ROW)]
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    end = next(place for place in range(first, len(lines) + 1) if place == len(lines) or lines[place][:1] != "|")
    return page[:start] + "\n".join([*lines[:end], *rows, *lines[end:]]) + "\n"


def _summary(found: list[Cell]) -> list[str]:
    heads = [f"{metric}: default | best classical | ratio | " for metric in SHOWN]
    lines = [f"| protocol | data | {'| '.join(heads)}|", "|---|---|" + "---|---|---|---|" * len(SHOWN)]
    for cell in found:
        if DEFAULT not in cell.entries:
            continue
        row = f"| {cell.protocol} | {cell.data}{' (incomplete)' if cell.missing else ''} |"
        for metric in SHOWN:
            mine, best = cell.entries[DEFAULT], cell.best(metric)
            row += f" {mine.mean(metric):.4f} |"
            if best is None:
                row += " | | |"
                continue
            compared = ratio(mine.values[metric], best.values[metric])
            row += f" {best.mean(metric):.4f} {best.name} | {_interval(compared, 3)} | {verdict(compared)} |"
        lines.append(row)
    return lines


def _provenance(records: Sequence[JsonObject]) -> list[str]:
    """Return where, with what and for how long the records were made."""
    lines = []
    for key in ("machine", "device", "versions", "commit", "command"):
        values = Counter(str(record.get(key, "unknown")) for record in records)
        shown = "; ".join(f"{value} ({count} runs)" if len(values) > 1 else value for value, count in values.items())
        lines.append(f"- {key}: {shown}")
    hours = {key: sum(record.get(key, 0.0) for record in records) / 3600 for key in ("wall", "processor_seconds")}
    took = f"{hours['wall']:.1f} hours together"
    if all("processor_seconds" in record for record in records):
        took += f", {hours['processor_seconds']:.1f} hours of one processor core"
    lines.append(f"- runs: {len(records)}, one at a time, each in a process of its own: {took}")
    return lines


def _details(cell: Cell) -> list[str]:
    """Return the table of a cell, the best model first."""
    metrics = DETAILS.get(cell.protocol, SHOWN)
    cuts = "" if len(cell.cuts) == 1 else f", cuts at {', '.join(cell.cuts)} %"
    lines = [f"## {cell.protocol}, {cell.data}", "", f"{TITLES[cell.protocol]}{cuts}; {cell.users:,} users.", ""]
    heads = " | ".join(metrics)
    lines += [
        f"| model | {heads} | default - model, {MAIN} | validation | seconds | tuning | peak GiB | options |",
        "|---|" + "---|" * (len(metrics) + 6),
    ]
    mine = cell.entries.get(DEFAULT)
    others = {name: entry.values[MAIN] for name, entry in cell.entries.items() if entry is not mine}
    gaps = compare_paired(mine.values[MAIN], others) if mine else {}
    for entry in sorted(cell.entries.values(), key=lambda entry: -entry.mean(MAIN)):
        bounds = intervals({metric: entry.values[metric] for metric in metrics})
        row = f"| {entry.name} | " + " | ".join(_figure(entry, metric, bounds[metric]) for metric in metrics)
        gap = gaps.get(entry.name)
        row += f" | {gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" if gap else " | "
        known = [record["validation"] for record in entry.records if record["validation"] is not None]
        row += f" | {np.mean(known):.4f}" if known else " | "
        tuning = entry.total("tuning_seconds")
        row += f" | {_seconds(entry.total('seconds'))} | {_seconds(tuning) if tuning else ''}"
        row += f" | {max(record['peak_gib'] for record in entry.records):.2f} | {_options(entry)} |"
        lines.append(row)
    if cell.missing:
        lines += ["", f"Not measured on all cuts: {', '.join(cell.missing)}."]
    return lines


def _figure(entry: Entry, metric: str, found: Interval) -> str:
    spread = entry.seed_deviation(metric)
    return _interval(found, 4) + ("" if spread is None else f" (seeds ± {spread:.4f})")


def _interval(found: Interval, digits: int) -> str:
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _options(entry: Entry) -> str:
    """Return each option with its different values over cuts and seeds."""
    values: dict[str, list[str]] = {}
    for record in entry.records:
        for key, value in record["options"].items():
            values.setdefault(key, []).append(_short(value))
    return "; ".join(f"{key} {', '.join(dict.fromkeys(shown))}" for key, shown in values.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
