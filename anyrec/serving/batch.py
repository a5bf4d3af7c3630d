"""Lists for every known user, written block by block to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from anyrec.core.progress import progress_bar
from anyrec.pipeline.answer import Clock, as_table, empty_table
from anyrec.recommender import Recommender
from anyrec.serving.list_files import open_lists

ROWS = 1 << 17
"""Of a row group, or as many as one block of users has."""


def write_lists(
    recommender: Recommender,
    path: Path,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    context: dict[str, Any] | None = None,
    now: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the k best of every known user: user_id, item_id, score, rank. The file is whole or not there; memory is that of a block.

    Its ending names the format: .parquet (also without one), .csv, .jsonl or .json.

    Gives `users`, `rows`, `latency_ms` of all users together by stage, and `warnings`.
    """
    model, pipeline = recommender.model, recommender.stages()
    clock, rows, warnings = Clock(), 0, []
    total = len(model.dataset.users)
    options = {"exclude_seen": exclude_seen, "context": context, "now": now}
    schema = empty_table(model).schema
    with open_lists(path, schema) as append:
        waiting: list[pa.Table] = []
        with progress_bar("lists", total, progress) as bar:
            for request, lists in pipeline.blocks(model, None, k, clock, **options):
                waiting.append(as_table(request, lists).cast(schema))
                warnings += request.warnings
                rows += len(waiting[-1])
                if sum(map(len, waiting)) >= ROWS:
                    append(pa.concat_tables(waiting))
                    waiting = []
                bar.advance(len(request.rows))
            append(pa.concat_tables([empty_table(model), *waiting]))
    warnings = list(dict.fromkeys(warnings))
    return {"users": total, "rows": rows, "latency_ms": clock.milliseconds(), "warnings": warnings}
