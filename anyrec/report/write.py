"""Write the report of a model into its run's folder: pages, figures, the split, and the metrics of each user."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.files import atomic_files
from anyrec.data.split import save_split
from anyrec.report.collect import ReportData
from anyrec.report.page import write_page
from anyrec.report.record import FIGURES, FILES, FOLDER, REPORT, USERS, read_files, remove_files, write_files
from anyrec.report.sections import sections
from anyrec.storage.model_directory import save_model
from anyrec.storage.parts import ModelParts


def write_report(data: ReportData, folder: Path, model: str | None = None) -> Path:
    """Write report.html, report.md, figures/, the split and evaluation/ as one unit; save the best baseline.

    Args:
        data: The contents of the report.
        folder: The run's folder. Files of its last report that the new one does not have are removed.
        model: `anyrec.storage.model_directory.model_id` of the evaluated model. It is written into evaluation.json,
            so that readers can reject the evaluation of another model.

    Returns:
        The path of report.html.

    Raises:
        OutputError: If a file cannot be written, or another process is writing the report.
    """
    started = time.perf_counter()
    recommender, best, last = data.recommender, data.best_baseline, read_files(folder)
    if best is not None:
        baseline = data.fitted[best]
        metrics = {} if baseline.before_refit is None else {"validation": baseline.before_refit}
        save_model(ModelParts(baseline, metrics=metrics), folder / "baselines" / best)
    data.seconds["saving"] = time.perf_counter() - started
    with atomic_files(folder, REPORT) as new:
        learning = recommender.model.required_learning()
        save_split(learning.split, learning.dataset, new)
        write_page(f"{recommender.config.name}: evaluation report", sections(data, folder), new)
        names = [path.relative_to(new).as_posix() for path in sorted(new.rglob("*")) if path.is_file()]
        save_figures(data, new / FOLDER, model)
        names += [f"{FOLDER}/{USERS}", f"{FOLDER}/{FILES}"]
        write_files(new, names, best)
    remove_files(folder, last, names)
    return folder / "report.html"


def save_figures(data: ReportData, folder: Path, model: str | None = None) -> None:
    """Write users.parquet and evaluation.json; both contain the id of the model.

    users.parquet has one row per evaluated user and columns `model.METRIC` and `BASELINE.METRIC` (the main metric).
    evaluation.json has the means, the metrics of groups, the comparisons and the options of the evaluation.

    Args:
        data: The contents of the report.
        folder: The folder; it is created if it is missing.
        model: Id of the model.
    """
    ids = data.recommender.dataset.ids("user").take(pa.array(data.model.ranking.users))
    columns: dict[str, pa.Array] = {"user_id": ids}
    for name, one in {"model": data.model, **data.baselines}.items():
        kept = one.by_user if name == "model" else {data.metric: one.by_user[data.metric]}
        columns |= {f"{name}.{metric}": pa.array(values) for metric, values in kept.items()}
    split = data.recommender.model.required_learning().split
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"model": model or ""}), folder / USERS)
    summary = {
        "name": data.model.name,
        "part": data.part,
        "metric": data.metric,
        "split": split.name,
        "candidates": data.recommender.config.evaluation.candidates,
        "candidate_samples": data.recommender.config.evaluation.candidate_samples,
        "repeats": data.recommender.config.evaluation.repeats,
        "repeated_targets": None if data.repeats is None else data.repeats.as_dict(),
        "users": len(data.model.ranking.users),
        "metrics": {name: one.means() for name, one in {"model": data.model, **data.baselines}.items()},
        "slices": [one.as_dict() for one in data.slices],
        "traits": {one.feature: one.as_dict() for one in data.traits},
        "heads": data.heads,
        "tuned": data.tuned,
        "compared": {name: asdict(one) for name, one in data.compared.items()},
        "feature_importance": {name: asdict(one) for name, one in data.feature_importance.items()},
        "seconds": data.seconds,
        "model": model,
    }
    (folder / FIGURES).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
