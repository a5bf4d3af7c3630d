"""What one fit learns from: the dataset, its labels, its split and the pairs that each user had in each part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from anyrec.core.config import Config
from anyrec.data.dataset import Dataset
from anyrec.data.labels import Labels, label_interactions
from anyrec.data.leaks import drop_leaks
from anyrec.data.order import latest_of_pairs
from anyrec.data.pairs import Pairs
from anyrec.data.split import Part, Split, hold_out_users, make_split, part_of_each


@dataclass(frozen=True)
class LearningData:
    """A dataset with its labels and its split, computed once and passed to everything that learns or measures.

    dataset: Sorted by id, without the features that leak held-out interactions.
    labels: Of all interactions, without the weights of one training (`anyrec.data.labels.training_weights`).
    split: Of the config. The final model of a refit learns from more (`final_split`).
    """

    dataset: Dataset
    labels: Labels
    split: Split

    @staticmethod
    def make(dataset: Dataset, config: Config) -> tuple[LearningData, list[str]]:
        """Label and split a dataset, and drop features that leak.

        Args:
            dataset: Sorted by id (`Dataset.sorted`).
            config: Complete config.

        Returns:
            The learning data, and what the user should know of the data, the split and the leaks.

        Raises:
            DataError: If weights are invalid or the split does not fit the data.
        """
        labels = Labels(*map(dataset.keep, label_interactions(dataset, config.data)))
        split, notes = make_split(dataset, config, labels.positive)
        split = replace(split, train=dataset.keep(split.train))
        dataset, leaks = drop_leaks(dataset, split, config.data)
        return LearningData(dataset, labels, split), [*dataset.notes, *notes, *leaks]

    @cached_property
    def parts(self) -> np.ndarray:
        """(interactions,) int8, the part of the split that each interaction happened in (`part_of_each`)."""
        return self.dataset.keep(part_of_each(self.dataset, self.split, self.labels.positive))

    @cached_property
    def seen(self) -> tuple[Pairs, np.ndarray]:
        """The items that each user interacted with, and (pairs,) uint8 their parts (`Pairs.by_part`)."""
        return self._pairs(None)

    @cached_property
    def positive_pairs(self) -> tuple[Pairs, np.ndarray]:
        """The items of each user's positive interactions, and (pairs,) uint8 their parts (`Pairs.by_part`)."""
        return self._pairs(np.flatnonzero(self.labels.positive))

    def _pairs(self, rows: np.ndarray | None) -> tuple[Pairs, np.ndarray]:
        """Return the pairs of the interactions `rows`, or of all if it is None, and their parts."""
        dataset = self.dataset
        users, items, parts = dataset.user_rows, dataset.item_rows, self.parts
        if rows is not None and len(rows) < len(dataset.interactions):
            users, items, parts = users[rows], items[rows], parts[rows]
        pairs, masks = Pairs.by_part(users, items, parts, len(dataset.users))
        return replace(pairs, items=dataset.keep(pairs.items)), dataset.keep(masks)

    def positives(self, rows: np.ndarray) -> np.ndarray:
        """Return those of the interactions `rows` that are positive."""
        return rows[self.labels.positive[rows]]

    def held_out(self, part: Part) -> np.ndarray:
        """Return the positive interactions of a part."""
        return self.positives(self.split.rows(part))

    def ranker_rows(self, config: Config) -> np.ndarray:
        """Return the validation interactions that the final model does not learn from, so that a ranker can.

        Without `training.refit` these are all of them; with it, those of a fraction of the users
        (`pipeline.rank.training.holdout_fraction`). Without a ranker there are none.
        """
        rank = config.pipeline.rank if config.pipeline else None
        if rank is None:
            return np.empty(0, np.int64)
        if not config.training.refit:
            return self.split.validation
        share = rank.training.holdout_fraction
        return hold_out_users(self.dataset.user_rows, self.split.validation, share, config.seed)

    def final_split(self, config: Config) -> Split:
        """Return the split as the final model sees it: with `training.refit`, validation is part of training.

        What the ranker learns from (`ranker_rows`) is in neither.
        """
        if not config.training.refit:
            return self.split
        learned = np.zeros(len(self.dataset.interactions), bool)
        learned[self.split.train] = learned[self.split.validation] = True
        learned[self.ranker_rows(config)] = False
        return Split(
            self.dataset.keep(np.flatnonzero(learned)), np.empty(0, np.int64), self.split.test, self.split.protocol
        )

    def positives_learned(self, config: Config) -> np.ndarray:
        """Return the training positives of the final model, one interaction for each user-item pair: the latest.

        Sources, the ranker's item facts and the report's item counts learn from these: dislikes do not count, and a
        repeated interaction counts once.
        """
        return latest_of_pairs(self.dataset, self.positives(self.final_split(config).train))
