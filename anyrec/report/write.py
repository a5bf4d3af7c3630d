"""Write the report of a model into its run's folder: pages, figures, the split and each user's figures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.files import atomic_files
from anyrec.data.split import save_split
from anyrec.report.page import write_page
from anyrec.report.record import FIGURES, FILES, FOLDER, REPORT, USERS, read_files, remove_files, write_files
from anyrec.report.sections import sections
from anyrec.report.study import Study
from anyrec.storage.model_directory import save_model
from anyrec.storage.parts import ModelParts


def write_report(found: Study, folder: Path, model: str | None = None) -> Path:
    """Write report.md, report.html, figures/, the split and evaluation/ with each user's figures, all as one unit.

    Args:
        found: What was measured.
        folder: The run's folder. Files of its last report that the new one does not have are removed.
        model: `anyrec.storage.model_directory.model_id` of the measured model, kept in evaluation.json so that readers can refuse another model's.

    Returns:
        The path of report.html.
    """
    started = time.perf_counter()
    recommender, best, last = found.recommender, found.best_baseline, read_files(folder)
    if best is not None:
        save_model(ModelParts(found.fitted[best]), folder / "baselines" / best)
    found.seconds["saving"] = time.perf_counter() - started
    with atomic_files(folder, REPORT) as new:
        learning = recommender.model.required_learning()
        save_split(learning.split, learning.dataset, new)
        write_page(f"{recommender.config.name}: how good is it?", sections(found, folder), new)
        names = [path.relative_to(new).as_posix() for path in sorted(new.rglob("*")) if path.is_file()]
        save_figures(found, new / FOLDER, model)
        names += [f"{FOLDER}/{USERS}", f"{FOLDER}/{FILES}"]
        write_files(new, names, best)
    remove_files(folder, last, names)
    return folder / "report.html"


def save_figures(found: Study, folder: Path, model: str | None = None) -> None:
    """users.parquet: one row a tested user, `model.metric` columns; evaluation.json: means, split, comparisons.

    Both carry the id of the model.
    """
    ids = found.recommender.dataset.ids("user").take(pa.array(found.model.ranking.users))
    columns: dict[str, Any] = {"user_id": ids}
    for name, one in {"model": found.model, **found.baselines}.items():
        kept = one.by_user if name == "model" else {found.metric: one.by_user[found.metric]}
        columns |= {f"{name}.{metric}": pa.array(values) for metric, values in kept.items()}
    split = found.recommender.model.required_learning().split
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"model": model or ""}), folder / USERS)
    summary = {
        "name": found.model.name,
        "part": found.part,
        "metric": found.metric,
        "split": split.name,
        "candidates": found.recommender.config.evaluation.candidates,
        "candidate_samples": found.recommender.config.evaluation.candidate_samples,
        "repeats": found.recommender.config.evaluation.repeats,
        "repeated_targets": None if found.repeats is None else found.repeats.as_dict(),
        "users": len(found.model.ranking.users),
        "metrics": {name: one.means() for name, one in {"model": found.model, **found.baselines}.items()},
        "compared": {name: asdict(one) for name, one in found.compared.items()},
        "worth": {name: asdict(one) for name, one in found.worth.items()},
        "seconds": found.seconds,
        "model": model,
    }
    (folder / FIGURES).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
