"""Classical models behind the same facade: fit, recommend, score, evaluate, save, load."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.numpy import save_file
from scipy import sparse
from torch import Tensor, nn

from anyrec.core.config import Config
from anyrec.core.contracts import Classical, History
from anyrec.core.discovery import Registry
from anyrec.core.errors import Fault, InputError
from anyrec.core.runtime import seeded
from anyrec.core.saved_files import check_parts, damaged, read_arrays
from anyrec.data.dataset import Dataset, Side
from anyrec.data.labels import MICROSECONDS_A_DAY, Labels
from anyrec.data.split import Part, Split, part_of_each
from anyrec.evaluation.ranking import Pairs
from anyrec.model.arguments import checked_k
from anyrec.model.records import Records
from anyrec.model.request_reader import Users
from anyrec.recommender import Recommender


class ClassicalModel(nn.Module):
    """A classical model with the two-tower's way to a score: `represent` gives row numbers, `score` looks scores up.

    A user without a history, or not known at all (row -1), is given the popular items. A request may bring a user's history:
    `with_histories` puts it into what represents the user.
    """

    has_history = False

    def __init__(self, classical: Classical, matrix: Any, popularity: np.ndarray | None = None):
        """
        Args:
            matrix: (users, items) csr, what each user had: in training, or all that is known if the model reads histories.
            popularity: (items,) the number of training users of each item; by default counted in `matrix`.
        """
        super().__init__()
        self.classical, self.matrix = classical, matrix
        counted = np.asarray(matrix.sum(0), np.float32).ravel() if popularity is None else popularity
        self.popularity = counted.astype(np.float32)
        self.place = nn.Parameter(torch.empty(0))
        self.heads = nn.ModuleDict()
        self.interaction = SimpleNamespace(factorised=True, dim=1, reads="vectors")

    def represent(self, side: str, columns: Any, rows: Tensor, items: Tensor | None = None) -> Tensor:
        return rows.unsqueeze(1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """users: (batch, 1 or more) as `represent` or `with_histories` gives them; items: (items, 1) or (batch, items, 1) rows
        -> (batch, items)."""
        rows = users[:, 0].cpu().numpy()
        known = np.maximum(rows, 0)
        history = self.history_of(users)
        scores = np.asarray(self.classical.score(known, history), np.float32)
        if self.classical.personal:
            new = (rows < 0) & (not self.classical.by_history)
            scores[new | (np.diff(history.indptr) == 0)] = self.popularity
        found, places = torch.from_numpy(scores), items[..., 0].cpu()
        if places.dim() == 2:
            return found.gather(1, places).to(users.device)
        if len(places) == found.shape[1] and bool((places == torch.arange(len(places))).all()):
            return found.to(users.device)
        return found.index_select(1, places).to(users.device)

    def with_histories(self, rows: np.ndarray, owners: np.ndarray, items: np.ndarray, instead: np.ndarray) -> Tensor:
        """(batch, 2 + most items) what represents users of whom a request tells a history.

        Column 0: the row among the known, -1 for a new user. Column 1: whether the items after it stand in place of the known
        history. Then the rows of the items, filled up with -1.

        Args:
            rows: (batch,) rows among the known users, -1 for a new one.
            owners: (events,) rows of the batch, ascending.
            items: (events,) rows of the items.
            instead: (batch,) bool.
        """
        counts = np.bincount(owners, minlength=len(rows))
        made = np.full((len(rows), 2 + int(counts.max(initial=0))), -1, np.int64)
        made[:, 0], made[:, 1] = rows, instead
        made[owners, 2 + np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)] = items
        return torch.from_numpy(made)

    def history_of(self, users: Tensor) -> Any:
        """(batch, items) csr of what `represent` or `with_histories` gave, 1 for each distinct pair."""
        given = users.cpu().numpy()
        rows = given[:, 0]
        known = self.matrix[np.maximum(rows, 0)]
        instead = given[:, 1] == 1 if given.shape[1] > 1 else np.zeros(len(rows), bool)
        if (instead | (rows < 0)).any():
            known = (sparse.diags((~instead & (rows >= 0)).astype(np.float32)) @ known).tocsr()
        owners, places = np.nonzero(given[:, 2:] >= 0)
        if len(owners):
            more = (np.ones(len(owners), np.float32), (owners, given[owners, 2 + places]))
            known = (known + sparse.csr_matrix(more, known.shape)).tocsr()
        known.eliminate_zeros()
        known.data[:] = 1
        return known


class ClassicalRecommender(Recommender):
    """A recommender whose model is one of the kind `classical`."""

    model: ClassicalModel  # type: ignore[assignment]
    has_vectors = False

    def __init__(self, config: Config, registry: Registry, notes: Any = ()):
        super().__init__(config, registry, notes)
        self.device = torch.device("cpu")
        self.matrix_parts: np.ndarray | None = None
        """(pairs,) uint8, as `seen_parts`, of the entries of the model's matrix; None if it reads training alone."""

    def _learn(self, dataset: Dataset, split: Split, labels: Labels, config: Config, **options: Any) -> None:
        classical = self._make()
        history = make_history(dataset, split.train[labels.positive[split.train]], config.seed)
        started = time.perf_counter()
        with seeded(config.seed):
            classical.fit(history)
        self.fit_seconds = time.perf_counter() - started
        self.model = ClassicalModel(classical, history.matrix)
        if classical.by_history:
            self._read_histories(labels)
        self.columns = {"user": {}, "item": {}}
        self._known = {}

    def _read_histories(self, labels: Labels) -> None:
        """Give a model that reads histories all positives of each user, also those after training, as it is served."""
        dataset, rows = self.dataset, np.flatnonzero(labels.positive)
        assert self.split is not None
        parts = part_of_each(dataset, self.split, labels.positive)[rows]
        pairs, self.matrix_parts = Pairs.by_part(
            dataset.user_rows[rows], dataset.item_rows[rows], parts, len(dataset.users)
        )
        shape = (len(dataset.users), len(dataset.items))
        self.model = ClassicalModel(self.model.classical, matrix_of(pairs, shape), self.model.popularity)

    def before(self, part: Part | np.ndarray) -> ClassicalRecommender:
        state = super().before(part)
        matrix = self.model.matrix
        if self.matrix_parts is not None:
            earlier = ((1 << self._levels(part)) - 1)[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))]
            pairs = Pairs(matrix.indices, matrix.indptr).where(self.matrix_parts & earlier != 0)
            state.model = ClassicalModel(self.model.classical, matrix_of(pairs, matrix.shape), self.model.popularity)
        return state

    def _make(self) -> Classical:
        name = self.config.model.type
        params = self.registry.params("classical", name, self.config.model.options(), "/model")
        return self.registry.get("classical", name, "/model/type")(params)

    def describe(self) -> list[str]:
        options = ", ".join(f"{name} {value}" for name, value in self.model.classical.params)
        return [f"model: {self.model.classical.type}" + (f" ({options})" if options else "")]

    def similar(self, items: Any, k: int = 10) -> pa.Table:
        """The k items most like each of `items`, by the model's own notion: query_id, item_id, score, rank."""
        k, rows = checked_k(k, len(self.dataset.items)), self._rows_of_ids("item", items)
        found = self.model.classical.similar(rows)
        if found is None:
            raise self._unable("no notion of similar items")
        scores = torch.from_numpy(np.array(found, np.float32))
        scores[torch.arange(len(rows)), torch.from_numpy(rows)] = -torch.inf
        best = torch.sort(scores, dim=1, descending=True, stable=True)
        return self._similar_table(rows, best.indices, best.values, k)

    def _embed(self, side: Any, source: Users, strict: bool | None = None) -> NoReturn:
        raise self._unable("no embeddings")

    def _widened(self, records: Records) -> Recommender:
        """Itself, if it was fitted on all of the items. Raises InputError for others, which it cannot score."""
        if (records.rows < 0).any():
            raise self._unable(
                "no way to score items that it was not fitted on", "Leave new items out, or train a two_tower."
            )
        return self

    def about(self) -> dict[str, Any]:
        return {"name": self.config.name, "type": self.config.model.type}

    def _unable(self, what: str, hint: str = "Train a two_tower for that.") -> InputError:
        fault = Fault("model", f"'{self.model.classical.type}' has {what}.", hint, "unable")
        return InputError(fault)

    def _represent(self, side: Any, source: Users) -> tuple[pa.Array, Tensor, np.ndarray]:
        """As the two-tower's; of a record only the id and what the user did count, and an unknown user has row -1."""
        records = self.read_records(side, source)
        if side == "item":
            self._rows_of_ids("item", records.ids)
        if records.brought is None or not self._reads_history():
            return records.ids, torch.from_numpy(records.rows).unsqueeze(1), records.rows
        events = records.brought.take(np.flatnonzero(records.brought.positive))
        represented = self.model.with_histories(records.rows, events.owners, events.items, events.instead)
        return records.ids, represented, records.rows

    def _read_features(self, side: Side) -> list[str]:
        return []

    @property
    def reads_history(self) -> bool:
        return self.model.classical.by_history

    def _reads_history(self) -> bool:
        return self.model.classical.by_history

    def _unused(self, records: Records) -> list[Fault]:
        """As the two-tower's; a model that gives everyone the same list reads no history by its nature."""
        faults = super()._unused(records)
        if not self.model.classical.personal and self.pipeline is None:
            faults = [one for one in faults if one.kind == "unknown user"]
        table = records.table
        names = [] if table is None else [n for n in table.column_names if n in self.dataset.users.column_names][1:]
        if names:
            what = f"'{self.model.classical.type}' reads no features ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})."
            faults.append(Fault("/user_data", what, "Train a two_tower for that.", "unused feature"))
        return faults

    def write_parts(self, folder: Path) -> None:
        save_file(
            {name: np.ascontiguousarray(value) for name, value in self.model.classical.state().items()},
            folder / "model.safetensors",
        )
        matrix = self.model.matrix
        arrays = {"columns": matrix.indices, "offsets": matrix.indptr, "popularity": self.model.popularity}
        if self.matrix_parts is not None:
            arrays["parts"] = self.matrix_parts
        save_file(arrays, folder / "history.safetensors")

    def read_parts(self, folder: Path) -> None:
        shape = (len(self.dataset.users), len(self.dataset.items))
        state, parts = read_arrays(folder / "model.safetensors"), read_arrays(folder / "history.safetensors")
        classical = self._make()
        with damaged(folder / "model.safetensors", f"what '{classical.type}' learned cannot be used"):
            classical.restore(state)
            check_classical(classical, *shape)
        with damaged(folder / "history.safetensors", "this is not a history of the users"):
            matrix = matrix_of(Pairs(parts["columns"], parts["offsets"]), shape)
            matrix.check_format(full_check=True)
            popularity, self.matrix_parts = parts.get("popularity"), parts.get("parts")
            if popularity is not None and popularity.shape != shape[1:]:
                raise ValueError(f"the popularity of {shape[1]} items was expected")
            if self.matrix_parts is not None:
                check_parts(self.matrix_parts, len(parts["columns"]))
        self.model = ClassicalModel(classical, matrix, popularity)

    def check_restored(self, folder: Path) -> None:
        """There are no vectors to check: `read_parts` has checked the scores."""


def matrix_of(pairs: Pairs, shape: tuple[int, int]) -> Any:
    """(users, items) csr_matrix of float32, 1 for each pair."""
    ones = np.ones(len(pairs.items), np.float32)
    return sparse.csr_matrix((ones, pairs.items.astype(np.int32), pairs.offsets.astype(np.int32)), shape)


def check_classical(classical: Classical, users: int, items: int) -> None:
    """Raises ValueError if a restored model does not score all items for the first and the last user."""
    matrix = sparse.csr_matrix((np.ones(2, np.float32), ([0, 1], [0, items - 1])), (2, items))
    scores = np.asarray(classical.score(np.array([0, users - 1]), matrix))
    if scores.shape != (2, items) or scores.dtype.kind != "f" or np.isnan(scores).any():
        raise ValueError(f"scores of {items} items were expected; found {scores.dtype} {scores.shape}")


def make_history(dataset: Dataset, rows: np.ndarray, seed: int) -> History:
    """The history that the interactions `rows` make."""
    users, items = dataset.user_rows[rows], dataset.item_rows[rows]
    pairs = Pairs.of(users, items, len(dataset.users))
    owners = pairs.owners()
    matrix = matrix_of(pairs, (len(dataset.users), len(dataset.items)))
    return History(matrix, owners, pairs.items, _last_days(dataset, rows, owners, pairs.items), dataset.items, seed)


def _last_days(dataset: Dataset, rows: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray | None:
    """(pairs,) when each pair last happened; interactions without a time count as the earliest."""
    timestamps = dataset.column("timestamp")
    if timestamps is None or timestamps.null_count == len(timestamps):
        return None
    moments = timestamps.cast(pa.int64())
    times = pc.fill_null(moments, pc.min(moments))
    days = times.to_numpy(zero_copy_only=False)[rows] / MICROSECONDS_A_DAY
    keys = users.astype(np.int64) << 32 | items
    place = np.searchsorted(keys, dataset.user_rows[rows].astype(np.int64) << 32 | dataset.item_rows[rows])
    last = np.full(len(keys), -np.inf)
    np.maximum.at(last, place, days)
    return last
