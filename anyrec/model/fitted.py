"""A fitted model: a scorer with the users and items that it knows.

Evaluation, retrieval, the pipeline, storage and serving work with `FittedModel`, whatever the type of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import Head
from anyrec.core.errors import Fault, InputError, ModelError
from anyrec.core.once import Once
from anyrec.core.types import JsonObject
from anyrec.data.ids import Side
from anyrec.data.learning import LearningData
from anyrec.data.split import Part, Split
from anyrec.model.added_users import AddedUsers
from anyrec.model.choice import Choice
from anyrec.model.known_records import KnownRecords
from anyrec.model.records import Records
from anyrec.model.request_reader import TRAIN_TOWERS
from anyrec.model.scoring import Scorer
from anyrec.model.user_interactions import histories_of

STATES = (("before", "validation"), ("before", "test"))
"""Keys of `FittedModel.computed`: the model as it was before a part of the split."""
INDEX, SIMILAR, SEARCH = "item index", "similar items", "search"
"""Keys of `FittedModel.computed` of retrieval: the index of the config, the index of cosines, the search spaces."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel(KnownRecords, ABC):
    """A trained model with the users and items it knows.

    It is immutable: methods that change something return another model, which shares memory with this one. The scorer
    is in evaluation mode. Several threads may use one model.

    Attributes:
        scorer: Scores representations of users against representations of items.
        learning: The data the model was trained on; None for a model loaded without it.
        before_refit: For a model refitted on the validation part, the validation metrics measured before the refit;
            None for all others.
        fingerprint: Hash of the training data, for a loaded model.
        model_id: Identifier of the saved model (`anyrec.storage.model_directory.model_id`); empty if it is not saved.
        directory: Folder that the model was loaded from or saved to.
        base: For a model to which items were added after training, the model without them; None for all others.
        extended: Whether users, items or interactions were added after training, also before the model was saved.
        choice: What a blend was chosen from, and why; None if the config has no blend, or nothing could be chosen.
        computed: Values that are computed when first needed, by name: representations, indexes, states.
    """

    scorer: Scorer
    learning: LearningData | None = None
    before_refit: dict[str, float] | None = None
    fingerprint: str | None = None
    model_id: str = ""
    directory: Path | None = None
    base: FittedModel | None = None
    extended: bool = False
    choice: Choice | None = None
    computed: Once[Any] = field(default_factory=Once, repr=False)  # Any: each key has its own type

    # What the model is

    @property
    def refitted(self) -> bool:
        """Whether the model also learned from the validation part (`training.refit`)."""
        return self.before_refit is not None

    @property
    def tuned(self) -> Mapping[str, JsonObject]:
        """The options that were chosen for classical models on the validation part, by name of the model."""
        return {} if self.choice is None else self.choice.tuned

    @property
    def widened(self) -> bool:
        """Whether items were added after training."""
        return self.base is not None

    @property
    def split(self) -> Split | None:
        """The split of the training data; None for a model loaded without it."""
        return None if self.learning is None else self.learning.split

    @cached_property
    def device(self) -> torch.device:
        """The device that the scorer computes on."""
        return self.scorer.device

    @property
    def factorised(self) -> bool:
        """Whether the score is the dot product of the `vectors` of a user and an item."""
        return False

    @property
    def reads_tokens(self) -> bool:
        """Whether the scorer reads the vectors of the features instead of one vector for each record."""
        return False

    @property
    @abstractmethod
    def reads_history(self) -> bool:
        """Whether a user's interactions after training change the user's scores."""

    @abstractmethod
    def describe(self) -> list[str]:
        """Return a description of the model's parts in lines of text."""

    @abstractmethod
    def about(self) -> JsonObject:
        """Return the description of the model that results contain."""

    def required_learning(self) -> LearningData:
        """Return the data the model was trained on.

        Raises:
            ModelError: If the model was loaded without it.
        """
        if self.learning is None:
            hint = "Use with_data(dataset), or `anyrec evaluate --data`."
            raise ModelError(Fault("split", "this model was loaded without its data.", hint))
        return self.learning

    def with_histories(self) -> Self:
        """Return this model with the histories of its users, from the data it was trained on."""
        if self.learning is None or (self.history is not None and self.history_parts is not None):
            return self
        history, parts = histories_of(self.learning, self.config)
        return replace(self, history=history, history_parts=parts)

    # The state of the users before a part of the split

    @abstractmethod
    def before(self, part: Part | np.ndarray) -> Self:
        """Return this model as it was before a part of the split. All evaluation uses such a model.

        Its `seen`, its histories and the representations of known users contain earlier parts only. The weights are the
        same.

        Args:
            part: "validation" or "test", or (users,) int: for each user the index in PARTS of a part, or NOW for all
                interactions.

        Raises:
            ModelError: If the model was saved by a version that did not save which part an interaction was in.
        """

    # Representations and scores

    @abstractmethod
    def represent(self, records: Records) -> Tensor:
        """Return the representation of each record that the scorer reads: (rows, dim), or (rows, features, dim)."""

    @abstractmethod
    def representations(self, side: Side) -> Tensor:
        """Return the representations of all known users or items; computed once."""

    @abstractmethod
    def user_representations(self, rows: np.ndarray) -> Tensor:
        """Return the representations of the known users `rows: (users,)`."""

    @abstractmethod
    def token_embeddings(self, side: Side) -> Tensor:
        """Return (rows, features, dim), the vectors of the features of all known users or items; computed once."""

    @abstractmethod
    def user_tokens(self, rows: np.ndarray) -> Tensor:
        """Return (users, features, dim), the vectors of the features of the known users `rows: (users,)`."""

    @abstractmethod
    def tokens(self, records: Records) -> Tensor:
        """Return (rows, features, dim), the vectors of the features of each record."""

    @abstractmethod
    def vectors(self, side: Side, representations: Tensor) -> Tensor:
        """Return one vector for each representation.

        Args:
            side: The side of the representations.
            representations: (rows, dim) or (rows, features, dim).

        Returns:
            (rows, dim). If the model is `factorised`, the dot product of a user's and an item's vector is their score.

        Raises:
            InputError: If the model has no vectors.
        """

    def embeddings(self, side: Side) -> np.ndarray:
        """Return (rows, dim) float32, the vectors of all known users or items; errors as for `vectors`."""
        return self.embeddings_from(side, 0)

    def embeddings_from(self, side: Side, first: int) -> np.ndarray:
        """Return (n, dim) float32, the vectors of the known users or items from a row on; errors as for `vectors`."""
        with torch.inference_mode():
            return self.vectors(side, self.representations(side)[first:]).float().cpu().numpy()

    def without_vector(self, users: Tensor) -> np.ndarray:
        """Return (users,) bool, the users of a `factorised` model whose scores are not products with their vector.

        Args:
            users: (users, ...) representations.
        """
        return np.zeros(len(users), bool)

    @property
    def heads(self) -> dict[str, Head]:
        """The heads by name; a classical model has none."""
        return {}

    @abstractmethod
    def predict(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Score pairs of representations.

        Args:
            users: (pairs, ...) representations.
            items: (pairs, ...) representations.

        Returns:
            `score` (pairs,), and the prediction of each head by name.
        """

    @abstractmethod
    def similar_items(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the model's own similarity of items.

        Args:
            rows: (queries,) item rows.

        Returns:
            (queries, items); None if the similarity is the cosine of the embeddings.
        """

    # Other data, other configs

    @abstractmethod
    def with_prepared_features(self) -> Self:
        """Return this model with the features of its users and items prepared again from `dataset`."""

    def with_config(self, config: Config) -> Self:
        """Return this model with a config that differs only in sections that are not trained, such as `evaluation`."""
        same = config.index.model_dump() == self.config.index.model_dump()
        changed = (*STATES, SEARCH) if same else (*STATES, SEARCH, INDEX, SIMILAR)
        base = None if self.base is None else self.base.with_config(config)
        return replace(self, config=config, base=base, computed=self.computed.without(*changed))

    def saved_in(self, directory: Path, model_id: str) -> Self:
        """Return this model with the folder and the id of its saved files."""
        return replace(self, directory=directory, model_id=model_id)

    @abstractmethod
    def with_items(self, records: Records, *, replace_known: bool = False) -> FittedModel:
        """Return a model that also knows the new items among `records`.

        Args:
            records: The items.
            replace_known: Whether items with known ids get these records and their vectors; by default they keep their
                own. The vectors of known users stay as they are.

        Raises:
            DataError: For ids of another type than the model's.
            InputError: For a model that can only score the items it was trained on.
        """

    def with_users(self, records: Records) -> Self:
        """Return a model that also knows the users of a request, with the interactions of the request.

        A known user keeps the own record where the request has no values, and the interactions of the request extend
        the user's own. What was learned in training stays as it is.

        Args:
            records: The users.

        Raises:
            DataError: For ids of another type than the model's.
        """
        added = AddedUsers.of(self.dataset, records)
        seen, seen_parts = added.seen(self.seen, self.seen_parts)
        shared: JsonObject = {"dataset": added.dataset(self.dataset), "seen": seen, "seen_parts": seen_parts}
        if self.history is not None:
            shared["history"] = added.array(self.history, self.history_of(added.records))
            if self.history_parts is not None:
                shared["history_parts"] = added.history_parts(self.history, self.history_parts)
        return self.with_added_users(added, {**shared, "extended": True})

    @abstractmethod
    def with_added_users(self, added: AddedUsers, shared: JsonObject) -> Self:
        """Return a model with further users, of which `with_users` has computed the changes that all models share.

        Args:
            added: The users.
            shared: Fields that change, by name.
        """

    def unable(self, what: str, hint: str = TRAIN_TOWERS) -> InputError:
        """Return the error for something that this type of model does not have.

        Args:
            what: What it does not have, such as "no embeddings".
            hint: How to get it.
        """
        return InputError(Fault("model", f"'{self.config.model.type}' has {what}.", hint, "unable"))
