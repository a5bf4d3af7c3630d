"""Lists of all known users, written block by block to a file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from anyrec.core.progress import progress_bar
from anyrec.core.types import JsonObject
from anyrec.pipeline.answer import Clock, as_table, empty_table
from anyrec.recommender import Recommender
from anyrec.serving.list_files import open_lists

ROWS = 1 << 17
"""Minimum number of rows in a row group of a Parquet file, except the last."""


def write_lists(
    recommender: Recommender,
    path: Path,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    context: JsonObject | None = None,
    now: int | None = None,
    progress: bool = True,
) -> JsonObject:
    """Write the k best items of each known user. Memory is bounded by one block of users.

    Args:
        recommender: A fitted recommender.
        path: The file; its ending is the format: .parquet (also without one), .csv, .jsonl or .json. It is complete
            or does not exist.
        k: Items for each user.
        exclude_seen: Exclude the items that each user has interacted with.
        context: Values of the moment by name.
        now: Time of the request in microseconds since 1970; by default the current time.
        progress: Show a progress bar.

    Returns:
        `users` and `rows` (their numbers), `latency_ms` by stage for all users together, `warnings`, and `index` as of
        `Answer`.
    """
    model, pipeline = recommender.model, recommender.stages()
    clock, rows, warnings = Clock(), 0, []
    total = len(model.dataset.users)
    schema = empty_table(model).schema
    with open_lists(path, schema) as append:
        waiting: list[pa.Table] = []
        with progress_bar("lists", total, progress) as bar:
            for request, lists in pipeline.blocks(
                model, None, k, clock, exclude_seen=exclude_seen, context=context, now=now
            ):
                waiting.append(as_table(request, lists).cast(schema))
                warnings += request.warnings
                rows += len(waiting[-1])
                if sum(map(len, waiting)) >= ROWS:
                    append(pa.concat_tables(waiting))
                    waiting = []
                bar.advance(len(request.rows))
            append(pa.concat_tables([empty_table(model), *waiting]))
    warnings = list(dict.fromkeys(warnings))
    done = {"users": total, "rows": rows, "latency_ms": clock.milliseconds(), "warnings": warnings}
    return {**done, "index": pipeline.index(model)}
