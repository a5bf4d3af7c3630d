"""Lists of all known users, and embeddings, written block by block to files; here, or by the workers of a Ray cluster.

The blocks do not depend on the number of workers, so the files do not either.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from anyrec.core.config import ClusterConfig
from anyrec.core.progress import Bar, progress_bar
from anyrec.core.ray_map import map_in_order
from anyrec.core.types import JsonObject
from anyrec.data.ids import SIDES, Side
from anyrec.model.records import Records
from anyrec.model.result_tables import embedding_table
from anyrec.pipeline.answer import Clock, as_table, empty_table
from anyrec.pipeline.requests import block_size
from anyrec.recommender import Recommender
from anyrec.retrieval.embedding_files import ROWS, row_groups, write_embeddings
from anyrec.serving.list_files import open_lists
from anyrec.serving.model_source import ModelSource
from anyrec.serving.result import read_request

EMBEDDED = 1 << 14
"""Records that are embedded at once: a multiple of what the towers represent at once, so no vector depends on it."""
JOBS_EACH = 4
"""Jobs of each worker, at least, if there are enough blocks: the last ones to finish then wait less for each other."""


@dataclass
class Part:
    """What was computed for some users or records.

    Attributes:
        tables: A table for each block of them.
        count: Their number.
        warnings: What could not be read or computed.
        seconds: The time of each stage.
    """

    tables: list[pa.Table]
    count: int
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


# Lists


@dataclass(frozen=True)
class ListOptions:
    """Options of lists, as of `Recommender.answer`."""

    k: int
    exclude_seen: bool
    context: JsonObject | None
    now: int


def write_lists(
    recommender: Recommender,
    path: Path,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    context: JsonObject | None = None,
    now: int | None = None,
    progress: bool = True,
    cluster: ClusterConfig | None = None,
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
        cluster: With `type: ray`, each worker loads the saved model and computes the lists of some of the users. The
            file is the same.

    Returns:
        `users` and `rows` (their numbers), `latency_ms` by stage for all users and workers together, `warnings`, and
        `index` as of `Answer`.

    Raises:
        ModelError: If workers cannot load the model as it is.
    """
    model, pipeline = recommender.model, recommender.stages()
    options = ListOptions(k, exclude_seen, context, time.time_ns() // 1000 if now is None else now)
    total, size = len(model.dataset.users), block_size(model)
    if cluster is None or cluster.type == "none":
        parts: Generator[Part] = (_lists(options, recommender, one) for one in _ranges(total, size))
    else:
        source, work = ModelSource.of(recommender), partial(_lists, options)
        parts = map_in_order(cluster, source.load, work, partial(_jobs, total, size, k))
    clock, rows, warnings = Clock(), 0, []
    empty = empty_table(model)
    with closing(parts), open_lists(path, empty.schema) as append, progress_bar("lists", total, progress) as bar:
        found = _noted(parts, bar, warnings, clock)
        tables = (table.cast(empty.schema) for part in found for table in part.tables)
        for table in row_groups(chain([empty], tables)):
            append(table)
            rows += len(table)
    warnings = list(dict.fromkeys(warnings))
    done = {"users": total, "rows": rows, "latency_ms": clock.milliseconds(), "warnings": warnings}
    return {**done, "index": pipeline.index(model)}


def _jobs(total: int, size: int, k: int, workers: int) -> list[range]:
    """Return the users of each job on a cluster: about ROWS rows of lists, or fewer if there are few users.

    Args:
        total: Number of users.
        size: Number of users in a block of requests.
        k: Items for each user.
        workers: Number of workers.
    """
    blocks = min(ROWS // (size * k), total // (size * workers * JOBS_EACH))
    return _ranges(total, size * max(1, blocks))


def _lists(options: ListOptions, recommender: Recommender, users: range) -> Part:
    """Return the lists of the known users in some rows, which are whole blocks of requests."""
    clock, found = Clock(), Part([], len(users))
    moment = {"context": options.context, "now": options.now}
    model, records = recommender.model, recommender.model.reader.known("user", users)
    for request, lists in recommender.stages().blocks(
        model, records, options.k, clock, exclude_seen=options.exclude_seen, before=users.start, **moment
    ):
        found.tables.append(as_table(request, lists))
        found.warnings += request.warnings
    found.seconds = clock.seconds
    return found


# Embeddings


def write_vectors(
    recommender: Recommender,
    folder: Path,
    data: Path | None = None,
    *,
    form: str = "parquet",
    strict: bool | None = None,
    progress: bool = True,
    cluster: ClusterConfig | None = None,
) -> JsonObject:
    """Write the embeddings of users and items as files (`anyrec.retrieval.embedding_files`).

    Args:
        recommender: A fitted recommender.
        folder: The folder; the files are complete or do not exist.
        data: File or folder of records to embed; None for all known users and items.
        form: "parquet", "numpy" or "faiss".
        strict: As for `Recommender.recommend`.
        progress: Show a progress bar.
        cluster: With `type: ray`, each worker loads the saved model, reads the records and embeds some of them. The
            files are the same.

    Returns:
        `users` and `items` (their numbers), `files` (their names), and `warnings`.

    Raises:
        DataError: For invalid records.
        InputError: If the model has no vectors.
        ModelError: If workers cannot load the model as it is.
    """
    records = Requested.read(recommender, data, strict)
    ranges = {side: _ranges(len(records.of[side].ids), EMBEDDED) for side in SIDES}
    jobs: list[tuple[Side, range]] = [(side, rows) for side in SIDES for rows in ranges[side]]
    if cluster is None or cluster.type == "none":
        parts: Generator[Part] = (_embeddings(records, job) for job in jobs)
    else:
        prepare = partial(_requested, ModelSource.of(recommender), data, strict)
        parts = map_in_order(cluster, prepare, _embeddings, lambda _: jobs)
    counts = {f"{side}s": len(records.of[side].ids) for side in SIDES}
    warnings = records.warnings()
    with closing(parts), progress_bar("embeddings", sum(counts.values()), progress) as bar:

        def tables(side: Side) -> Iterator[pa.Table]:
            for part in _noted(islice(parts, len(ranges[side])), bar, warnings):
                yield from part.tables

        found: dict[Side, tuple[int, Iterator[pa.Table]]]
        found = {side: (counts[f"{side}s"], tables(side)) for side in SIDES}
        files = write_embeddings(found, folder, form, recommender.model.model_id)
    return {**counts, "files": files, "warnings": list(dict.fromkeys(warnings))}


@dataclass(frozen=True)
class Requested:
    """A recommender, and the users and items to embed.

    Attributes:
        recommender: The recommender.
        of: The records of each side.
    """

    recommender: Recommender
    of: dict[Side, Records]

    @classmethod
    def read(cls, recommender: Recommender, data: Path | None, strict: bool | None) -> Requested:
        """Read the records; arguments as of `write_vectors`."""
        request = None if data is None else read_request(recommender, data)
        return cls(recommender, {side: recommender.read_records(side, request, strict=strict) for side in SIDES})

    def warnings(self) -> list[str]:
        """Return what could not be read so far."""
        return [one for records in self.of.values() for one in records.context.warnings]


def _requested(source: ModelSource, data: Path | None, strict: bool | None) -> Requested:
    return Requested.read(source.load(), data, strict)


def _embeddings(requested: Requested, job: tuple[Side, range]) -> Part:
    """Return the embeddings of the records of one side in some rows, and warnings about them."""
    side, rows = job
    records = requested.of[side]
    context = replace(records.context, warnings=[])
    block = replace(records, context=context).slice(rows.start, len(rows))
    return Part([embedding_table(requested.recommender.model, block)], len(rows), context.warnings)


# Both


def _ranges(total: int, size: int) -> list[range]:
    """Return the ranges of `size` rows, the last one shorter; a single empty one if there are no rows."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)] or [range(0)]


def _noted(parts: Iterable[Part], bar: Bar, warnings: list[str], clock: Clock | None = None) -> Iterator[Part]:
    """Yield each part; advance the bar, and collect the warnings and the time of the stages."""
    for part in parts:
        yield part
        warnings += part.warnings
        if clock is not None:
            clock.add(part.seconds)
        bar.advance(part.count)
