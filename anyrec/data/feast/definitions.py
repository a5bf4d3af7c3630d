"""A feature repository of Feast for a dataset: entities, feature views and the Parquet files that they read."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.errors import DataError, Fault
from anyrec.core.files import atomic_files
from anyrec.core.outputs import check_output
from anyrec.data.feast.types import feast_names, feast_type
from anyrec.data.formats.times import TIME
from anyrec.data.ids import SIDES, Side
from anyrec.data.tables import Tables

PROJECT = re.compile(r"[A-Za-z0-9]\w*", re.ASCII)
"""Names of projects that Feast accepts."""
TIMESTAMP = "event_timestamp"
STORE = "feature_store.yaml"
STORE_TEXT = """\
# Where Feast keeps its registry and its online features. `anyrec feast generate` does not change this file again.
project: {project}
provider: local
registry: data/registry.db
online_store:
  type: sqlite
  path: data/online_store.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""
HEAD = '''\
"""Features of users and items, and the embeddings of a model. Written by `anyrec feast generate`."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import {types}
'''
ENTITY = """
{side} = Entity(name="{side}", join_keys=["{side}_id"], value_type=ValueType.{kind})
"""
FEATURES = """\
{side}_features = FeatureView(
    name="{side}_features",
    entities=[{side}],
    ttl=timedelta(days={days}),  # 0: values do not expire
    schema=[
{fields}
    ],
    source=FileSource(name="{side}s", path="data/{side}s.parquet", timestamp_field="{time}"),
)
"""
EMBEDDINGS = """\
{side}_embeddings = FeatureView(
    name="{side}_embeddings",
    entities=[{side}],
    ttl=timedelta(days=0),
    schema=[Field(name="embedding", dtype=Array(Float32))],
    source=PushSource(
        name="{side}_embeddings_push",
        batch_source=FileSource(
            name="{side}_embeddings", path="data/{side}_embeddings.parquet", timestamp_field="{time}"
        ),
    ),
)
"""
SERVICE = """
anyrec = FeatureService(name="anyrec", features=[{features}])
"""


def write_repository(
    dataset: Tables, folder: Path, project: str, days: int = 0, moment: dt.datetime | None = None
) -> list[str]:
    """Write definitions.py, the Parquet files, and feature_store.yaml if it is not there.

    Args:
        dataset: Users and items.
        folder: The folder of the repository.
        project: Name of the project in Feast.
        days: Days after which values expire; 0 for never.
        moment: When the features were true; by default now. Feast joins them to later events only.

    Returns:
        Notes for the user: features that Feast cannot hold, and are left out.

    Raises:
        DataError: If features of one side have the same name in Feast.
        OutputError: If the files cannot be written.
    """
    check_output(folder, "inside")
    moment = dt.datetime.now(dt.timezone.utc).replace(microsecond=0) if moment is None else moment
    notes: list[str] = []
    columns: dict[Side, dict[str, str]] = {side: _columns(dataset.table(side), side, notes) for side in SIDES}
    with atomic_files(folder, "feast") as new:
        (new / "data").mkdir()
        if not (folder / STORE).exists():
            (new / STORE).write_text(STORE_TEXT.format(project=project), encoding="utf-8")
        (new / "definitions.py").write_text(_definitions(dataset, columns, days), encoding="utf-8")
        for side in SIDES:
            table, key = dataset.table(side), f"{side}_id"
            times = pa.array([moment] * len(table), TIME)
            values = {key: table.column(key), **{name: table.column(one) for one, name in columns[side].items()}}
            pq.write_table(pa.table({**values, TIMESTAMP: times}), new / "data" / f"{side}s.parquet")
            if not (folder / "data" / f"{side}_embeddings.parquet").exists():
                kinds = {key: table.schema.field(key).type, "embedding": pa.list_(pa.float32()), TIMESTAMP: TIME}
                empty = pa.schema(list(kinds.items())).empty_table()
                pq.write_table(empty, new / "data" / f"{side}_embeddings.parquet")
    return notes


def _columns(table: pa.Table, side: Side, notes: list[str]) -> dict[str, str]:
    """Return the names in Feast of the columns that it can hold. notes: gets the columns that are left out."""
    features = [name for name in table.column_names if name != f"{side}_id"]
    held = [name for name in features if feast_type(table.schema.field(name).type) is not None]
    lost = [name for name in features if name not in held]
    if lost:
        notes.append(f"Feast has no type for these features of {side}s, which are left out: {', '.join(lost)}.")
    return feast_names(held)


def _definitions(dataset: Tables, columns: dict[Side, dict[str, str]], days: int) -> str:
    """Return the text of definitions.py."""
    parts, used, defined = [], {"Array", "Float32"}, []
    for side in SIDES:
        schema, columns_of = dataset.table(side).schema, columns[side]
        types = {name: str(feast_type(schema.field(column).type)) for column, name in columns_of.items()}
        used |= {part for one in types.values() for part in one.rstrip(")").split("(")}
        kind = "STRING" if pa.types.is_string(dataset.ids(side).type) else "INT64"
        parts.append(ENTITY.format(side=side, kind=kind))
        if types:
            fields = "\n".join(f'        Field(name="{name}", dtype={one}),' for name, one in types.items())
            parts.append(FEATURES.format(side=side, days=days, fields=fields, time=TIMESTAMP))
            defined.append(f"{side}_features")
        parts.append(EMBEDDINGS.format(side=side, time=TIMESTAMP))
    if not defined:
        raise DataError(Fault("user_data", "neither users nor items have features.", "Give them features.", "no data"))
    service = SERVICE.format(features=", ".join(defined))
    return HEAD.format(types=", ".join(sorted(used))) + "".join(parts) + service
