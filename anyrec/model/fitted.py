"""A fitted model: its scorer, and the users and items that it knows. What evaluates, retrieves, ranks, saves and serves uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import Context
from anyrec.core.errors import DataError, Fault, InputError, ModelError
from anyrec.core.once import Once
from anyrec.core.registry import Registry
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.histories import Events, events_of, history_before, history_column, parts_of_events
from anyrec.data.ids import Side
from anyrec.data.learning import LearningData
from anyrec.data.pairs import Pairs
from anyrec.data.partial import of_other_type, type_name
from anyrec.data.request_history import extend_histories
from anyrec.data.split import PARTS, Part, Split
from anyrec.model.records import Records
from anyrec.model.request_reader import TRAIN_TOWERS, Reads, RequestReader, Users
from anyrec.model.scoring import Scorer

STATES = (("before", "validation"), ("before", "test"))
"""Keys, among a model's computed values, of the model before a part of the split."""
INDEX, SIMILAR, SEARCH = "item index", "similar items", "search"
"""Keys of what retrieval computes of the items: the index of the config, the index of cosines, the search spaces."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelData:
    """What is known of a model before it is trained; pipelines are checked against it.

    has_vectors: Whether users and items have embeddings.
    history: (users,) list<EVENT>, what each known user did, if the model or its pipeline reads it.
    """

    config: Config
    registry: Registry
    dataset: Dataset
    has_vectors: bool
    history: pa.Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel(ModelData, ABC):
    """A trained model with the users and items it knows. It never changes: methods that change something return another one.

    The scorer is always in evaluation mode. Values that are computed once (`computed`) are safe to ask for from several threads.

    scorer: Scores what represents a user against what represents an item.
    context: Folder of files, permissions and seed, for encoders.
    seen: The items that each known user interacted with; lists leave them out by default.
    seen_parts: (pairs,) uint8, bit n is set if the pair of `seen` happened in part n of the split. None for a model saved by a
        version that did not save it.
    history_parts: (events,) int8, the part of the split that each event of `history` happened in.
    learning: The data the model was trained on; None for a model loaded without it.
    before_refit: For a model refitted on the validation part, the validation metrics from before; None for all others.
    fingerprint: Hash of the training data, for a loaded model.
    model_id: Identity of the saved model (`anyrec.storage.model_directory.model_id`); empty for one that was not saved.
    directory: Folder that the model was loaded from or saved to.
    widened: Whether items were added after training.
    computed: Representations by name, computed when first needed.
    """

    scorer: Scorer
    context: Context
    seen: Pairs
    seen_parts: np.ndarray | None = None
    history_parts: np.ndarray | None = None
    learning: LearningData | None = None
    before_refit: dict[str, float] | None = None
    fingerprint: str | None = None
    model_id: str = ""
    directory: Path | None = None
    widened: bool = False
    computed: Once[Any] = field(default_factory=Once, repr=False)

    # What the model is

    @property
    def refitted(self) -> bool:
        """Whether the model also learned from the validation part (`training.refit`)."""
        return self.before_refit is not None

    @property
    def split(self) -> Split | None:
        """The split of the training data; None for a model loaded without it."""
        return None if self.learning is None else self.learning.split

    @property
    def device(self) -> torch.device:
        """The device that the scorer computes on."""
        return self.scorer.device

    @property
    def factorised(self) -> bool:
        """Whether the score is the dot product of the `vectors` of a user and an item."""
        return False

    @property
    def reads_tokens(self) -> bool:
        """Whether the scorer reads feature vectors instead of one vector each."""
        return False

    @property
    @abstractmethod
    def reads_history(self) -> bool:
        """Whether what a user does after training changes the user's scores."""

    @abstractmethod
    def reads(self) -> Reads:
        """Return what the model reads of a request."""

    @abstractmethod
    def describe(self) -> list[str]:
        """Return what the model is made of, in lines for a person."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return the model in one line of a result."""

    def required_learning(self) -> LearningData:
        """Return the data the model was trained on. Raises ModelError for a model loaded without it."""
        if self.learning is None:
            hint = "Use with_data(dataset), or `anyrec evaluate --data`."
            raise ModelError(Fault("split", "this model was loaded without its data.", hint))
        return self.learning

    # Ids, records and what users did

    @cached_property
    def reader(self) -> RequestReader:
        """Reads the records of requests."""
        return RequestReader(self.config.data, self.dataset, self.context, self.reads())

    def request_context(self, root: Path | None = None, strict: bool | None = None) -> Context:
        """Return a context for one request, with its own folder and warnings."""
        return self.reader.request_context(root, strict)

    def read_records(self, side: Side, source: Users, **options: Any) -> Records:
        """Read the users or items of a request; arguments as for `RequestReader.read`."""
        return self.reader.read(side, source, **options)

    def rows_of(self, side: Side, ids: Any) -> np.ndarray:
        """Return the rows (ids,) of known ids. Raises DataError that names the unknown ones."""
        return self.reader.rows_of(side, ids)

    def seen_by(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (pairs,) places in `rows`, ascending, and the items that each user has seen.

        Args:
            rows: (users,) rows among the known users, -1 for a new one.
        """
        inside = np.flatnonzero(rows >= 0)
        places, items = self.seen.take(rows[inside])
        return inside[places], items

    def seen_of(self, records: Records) -> tuple[np.ndarray, np.ndarray]:
        """Return (pairs,) rows of the request, ascending, and the items each user has seen, by the model's data and the request."""
        rows, items = self.seen_by(records.rows)
        if records.history is None:
            return rows, items
        width = len(self.dataset.items)
        more = records.history.owners * width + records.history.items
        keys = np.unique(np.concatenate([rows * width + items, more]))
        return keys // width, keys % width

    def history_of(self, records: Records) -> pa.Array:
        """Return (rows,) list<EVENT>: what is known of each user, and what the request adds."""
        history = self.kept_history()
        if records.everyone:
            return history
        known = history.take(pa.array(records.rows, mask=records.rows < 0))
        return known if records.history is None else extend_histories(known, records.history)

    def kept_history(self) -> pa.Array:
        """Return `history`. Raises ModelError for a model that keeps none."""
        if self.history is None:
            raise ModelError(Fault("model", "this model keeps no histories of its users.", "Train it again.", "format"))
        return self.history

    def with_histories(self) -> Self:
        """Return this model with the histories of its users, from the data it was trained on."""
        if self.learning is None or (self.history is not None and self.history_parts is not None):
            return self
        history, parts = histories_of(self.learning, self.config)
        return replace(self, history=history, history_parts=parts)

    # The state of the users at another time

    @abstractmethod
    def before(self, part: Part | np.ndarray) -> Self:
        """Return this model as it was before a part of the split; everything that is measured is measured on it.

        Of each known user it knows (`seen`, the history, the representations) what happened in earlier parts. Its weights are the
        same.

        Args:
            part: `validation` or `test`, or (users,) the place in PARTS of a part for each user, NOW for a user of whom everything
                is known.

        Raises:
            ModelError: If the model was saved by a version that did not save which part an interaction was in.
        """

    def seen_before(self, part: Part | np.ndarray) -> Pairs:
        """Return which items each user had before a part of the split. part: as for `before`."""
        if self.seen_parts is None:
            what = "this model was saved by an older version, which did not save which interactions were held out."
            raise ModelError(Fault("model", what, "Give its data as well (--data), or train it again.", "format"))
        earlier = (1 << self.levels(part)) - 1
        return self.seen.where(self.seen_parts & earlier[self.seen.owners()] != 0)

    def levels(self, part: Part | np.ndarray) -> np.ndarray:
        """Return (users,) the place in PARTS that `part` stands for."""
        return np.full(len(self.dataset.users), PARTS.index(part)) if isinstance(part, str) else part

    def histories_before(self, levels: np.ndarray, ordered: bool) -> pa.Array | None:
        """Return (users,) list<EVENT>, the histories before the parts in `levels`; None if the model keeps none.

        Args:
            levels: As `levels` returns them.
            ordered: Whether an event at the same time counts as earlier if it comes earlier in the file.
        """
        if self.history is None or self.history_parts is None:
            return self.history
        return history_before(self.history, self.history_parts, levels, ordered)

    # Representations and scores

    @abstractmethod
    def represent(self, records: Records) -> Tensor:
        """Return what the scorer reads of each record: (rows, dim), or (rows, features, dim)."""

    @abstractmethod
    def representations(self, side: Side) -> Tensor:
        """Return what the scorer reads of every known user or item, computed once."""

    @abstractmethod
    def user_representations(self, rows: np.ndarray) -> Tensor:
        """Return what the scorer reads of the known users `rows: (users,)`."""

    @abstractmethod
    def token_embeddings(self, side: Side) -> Tensor:
        """Return (rows, features, dim), the feature vectors of every known user or item, computed once."""

    @abstractmethod
    def user_tokens(self, rows: np.ndarray) -> Tensor:
        """Return (users, features, dim), the feature vectors of the known users `rows: (users,)`."""

    @abstractmethod
    def tokens(self, records: Records) -> Tensor:
        """Return (rows, features, dim), the feature vectors of each record."""

    @abstractmethod
    def vectors(self, side: Side, representations: Tensor) -> Tensor:
        """Return one vector a row: in the space where the dot product is the score if there is one, else the tower's output."""

    def embeddings(self, side: Side) -> np.ndarray:
        """Return the vectors (rows, dim) float32 of every known user or item. Raises InputError for a model without vectors."""
        with torch.inference_mode():
            return self.vectors(side, self.representations(side)).float().cpu().numpy()

    @abstractmethod
    def predict(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Return `score` (pairs,) and each head's prediction for pairs of representations, row by row."""

    @abstractmethod
    def similar_items(self, rows: np.ndarray) -> np.ndarray | None:
        """Return (queries, items) the model's own similarity of items; None if it is the cosine of the embeddings."""

    # Other data, other configs

    @abstractmethod
    def with_prepared_features(self) -> Self:
        """Return this model with the features of its known users and items prepared again from `dataset`."""

    def with_config(self, config: Config) -> Self:
        """Return this model with another config, which may differ in what is not trained: pipeline, index, evaluation."""
        changed = (*STATES, SEARCH) if config.index == self.config.index else (*STATES, SEARCH, INDEX)
        return replace(self, config=config, computed=self.computed.without(*changed))

    def saved_in(self, directory: Path, model_id: str) -> Self:
        """Return this model with the folder and the id that it was saved with."""
        return replace(self, directory=directory, model_id=model_id)

    @abstractmethod
    def with_items(self, records: Records) -> FittedModel:
        """Return a model that also knows the new items among `records`, whose known ids keep their own records.

        It shares the memory of this one.

        Raises:
            DataError: For ids of another type than the model's.
            InputError: For a model that can only score the items it was trained on.
        """

    def unable(self, what: str, hint: str = TRAIN_TOWERS) -> InputError:
        """Return the error for something that this type of model cannot do."""
        return InputError(Fault("model", f"'{self.config.model.type}' has {what}.", hint, "unable"))


def new_items(known: Dataset, records: Records) -> Records:
    """Return the records whose ids are not known, in the type of the known ids. Raises DataError for ids of another type."""
    unknown = records.rows < 0
    if of_other_type(records.ids, known.ids("item")):
        kinds = type_name(known.ids("item")), show(records.ids[int(np.argmax(unknown))].as_py())
        what = f"the ids of this model's items are {kinds[0]}; found {kinds[1]}."
        raise DataError(Fault("/item_data/0/item_id", what, "Write all ids of one type.", "id type"))
    ids = records.ids.filter(pa.array(unknown)).cast(known.ids("item").type)
    table = records.required_table().filter(pa.array(unknown))
    table = table.set_column(table.column_names.index("item_id"), "item_id", ids)
    return replace(records, ids=ids, rows=records.rows[unknown], table=table)


def seen_pairs(learning: LearningData) -> tuple[Pairs, np.ndarray]:
    """Return which items each user interacted with, and (pairs,) uint8 in which parts of the split (`Pairs.by_part`)."""
    dataset = learning.dataset
    return Pairs.by_part(dataset.user_rows, dataset.item_rows, learning.parts, len(dataset.users))


def events_in(learning: LearningData, rows: np.ndarray, config: Config) -> Events:
    """Return the interactions `rows` as events, by user and time, without dislikes."""
    return events_of(learning.dataset, rows, learning.labels.negative, config.data.history)


def histories_of(learning: LearningData, config: Config) -> tuple[pa.Array, np.ndarray]:
    """Return (users,) list<EVENT>, all that each user did, and (events,) int8 the part of the split of each event."""
    events = events_in(learning, np.arange(len(learning.dataset.interactions)), config)
    return history_column(learning.dataset, events), parts_of_events(events, learning.parts)
