"""The HTTP API of Feast's feature server: online features, and values that are pushed to it."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anyrec.core.errors import AnyrecError, ConfigError, Fault
from anyrec.core.post_json import post_json
from anyrec.core.progress import progress_bar
from anyrec.core.types import Json
from anyrec.data.feast.definitions import TIMESTAMP
from anyrec.data.feast.types import feast_names
from anyrec.data.formats.times import TIME, parse_time
from anyrec.data.list_columns import as_lists

IDS = 1000
"""Ids of one request."""
PRESENT = "PRESENT"
"""Status of a value that the online store has and that has not expired."""


@dataclass(frozen=True)
class FeatureServer:
    """A feature server.

    Attributes:
        url: Its address, as http://localhost:6566.
        seconds: Time limit of one request.
        token_env: Environment variable with the token; None for none.
    """

    url: str
    seconds: float = 10.0
    token_env: str | None = None

    def online_features(self, view: str, ids: pa.Array, kinds: Mapping[str, pa.DataType]) -> pa.Table:
        """Return the online features of users.

        Args:
            view: Name of the feature view.
            ids: (users,) their ids.
            kinds: Type of each column by its name in the dataset (`categorical.job`).

        Returns:
            (users,) the columns; null for values that the server does not have or that have expired.

        Raises:
            AnyrecError: If the server does not answer in time, or its answer is not valid.
            ConfigError: If the token is not set.
        """
        names = feast_names(list(kinds))
        parts = []
        for start in range(0, len(ids), IDS):
            part = ids.slice(start, IDS).to_pylist()
            document = {"features": [f"{view}:{name}" for name in names.values()], "entities": {"user_id": part}}
            found = _columns(self._post("get-online-features", document), part)
            absent = [name for name in names.values() if name not in found]
            if absent:
                raise AnyrecError(f"{self.url} answered without the features {', '.join(absent)}")
            parts.append(pa.table({one: _array(found[name], kinds[one], one) for one, name in names.items()}))
        return pa.concat_tables(parts) if parts else pa.schema(list(kinds.items())).empty_table()

    def push(self, source: str, table: pa.Table, progress: bool = True) -> None:
        """Push the rows of a table to a push source, with the present time.

        Args:
            source: Name of the push source.
            table: The id and the features, by their names in Feast.
            progress: Show a progress bar.

        Raises:
            AnyrecError: If the server does not answer in time, or refuses.
            ConfigError: If the token is not set.
        """
        now = dt.datetime.now(dt.timezone.utc).isoformat()
        with progress_bar(f"pushing to {source}", len(table), progress) as bar:
            for start in range(0, len(table), IDS):
                part = table.slice(start, IDS)
                rows = {**part.to_pydict(), TIMESTAMP: [now] * len(part)}
                self._post("push", {"push_source_name": source, "df": rows, "to": "online"})
                bar.advance(len(part))

    def _post(self, route: str, document: Json) -> Json:
        headers = {}
        if self.token_env is not None:
            token = os.environ.get(self.token_env)
            if not token:
                what = f"the environment variable {self.token_env} is not set."
                raise ConfigError(Fault("/feast/token_env", what, "Set it to the token of Feast.", "missing key"))
            headers = {"Authorization": f"Bearer {token}"}
        return post_json(f"{self.url.rstrip('/')}/{route}", document, self.seconds, headers)


def _columns(answer: Json, ids: list[Json]) -> dict[str, list[Json]]:
    """Return the values by name of an answer, None for each that is not present.

    The columns come in any order; the ids are among them and must be those of the request.

    Raises:
        AnyrecError: If the answer has another shape.
    """
    try:
        names, results = answer["metadata"]["feature_names"], answer["results"]
        found = {}
        for name, result in zip(names, results, strict=True):
            pairs = zip(result["values"], result["statuses"], strict=True)
            found[name] = [value if status == PRESENT else None for value, status in pairs]
        if found.pop("user_id") != ids or any(len(values) != len(ids) for values in found.values()):
            raise ValueError("the ids are not those of the request")
    except (KeyError, TypeError, ValueError) as error:
        raise AnyrecError(f"Feast's answer is not one of features ({type(error).__name__}: {error})") from None
    return found


def _array(values: list[Json], kind: pa.DataType, name: str) -> pa.Array:
    """Return values of JSON as a column of the dataset. Raises AnyrecError for values of another type."""
    try:
        if pa.types.is_list(kind):
            lists = [None if one is None else one if isinstance(one, list) else [one] for one in values]
            flat = [one for part in lists if part is not None for one in part]
            lengths = np.array([0 if part is None else len(part) for part in lists])
            missing = pa.array([part is None for part in lists])
            return as_lists(_array(flat, kind.value_type, name), lengths, missing).cast(kind)
        if pa.types.is_timestamp(kind):
            return pa.array([_moment(one) for one in values], pa.int64()).cast(TIME).cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise AnyrecError(f"Feast's values of '{name}' are not {kind} ({error})") from None


def _moment(value: Json) -> int | None:
    """Return microseconds since 1970 of a time, which Feast gives as seconds or as ISO 8601."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        found = parse_time(value)
        if found is None:
            raise ValueError(f"{value!r:.40} is no time")
        return found
    return round(value * 1_000_000)
