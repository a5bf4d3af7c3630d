"""A recommender with the methods of scikit-learn, and cross-validation by the split protocols (docs/sklearn.md)."""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from anyrec.core.config import Config, SplitConfig
from anyrec.core.config.training import RANKING_METRICS
from anyrec.core.errors import Fault, InputError
from anyrec.core.load_config import read_config
from anyrec.core.types import Json, JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.formats.frames import DataFrame, Form, as_arrow, in_form, is_table
from anyrec.data.labels import label_interactions
from anyrec.data.order import has_clock
from anyrec.data.split import Split, save_split
from anyrec.evaluation.pair_metrics import metrics_of_pairs
from anyrec.model.arguments import checked_choice
from anyrec.model.pair_tables import pair_table
from anyrec.model.request_reader import Users
from anyrec.recommender import Recommender

Source: TypeAlias = Config | JsonObject | str | Path | None
"""A config, a dict, or the path of a file; None for the defaults."""
PREFIX = "config__"
"""Begins the names of parameters that are keys of the config: config__training__epochs."""
SPLIT = "split.parquet"


class RecommenderEstimator(BaseEstimator):
    """A recommender that is fitted on a table of interactions.

    It can be cloned, and used in `cross_val_score`, `GridSearchCV` and pipelines. Keys of the config are parameters:
    `config__training__epochs` is `training.epochs`.

    If the config sets no `split`, all interactions are learned from: a tenth of them, the latest if they have times,
    chooses the number of epochs first (`training.refit`).

    Attributes:
        config: The config: a dict, a Config, or the path of a file; None for the defaults.
        users: Table of users with `user_id` and features; None for the ids of the interactions alone.
        items: Table of items with `item_id` and features; None for the ids of the interactions alone.
        metric: The metric that `score` returns, as `ndcg@10`.
        progress: Show progress bars.
        recommender_: The fitted `Recommender`, which has all other methods.

    Example:
        >>> estimator = RecommenderEstimator({"model": {"type": "ials"}}, items=items)
        >>> cross_val_score(estimator, interactions, cv=KFold(5, shuffle=True))
        >>> GridSearchCV(estimator, {"config__model__factors": [16, 64]}, cv=3).fit(interactions).best_params_
    """

    def __init__(
        self,
        config: Source = None,
        *,
        users: DataFrame = None,
        items: DataFrame = None,
        metric: str = "ndcg@10",
        progress: bool = False,
    ):
        self.config, self.users, self.items = config, users, items
        self.metric, self.progress = metric, progress

    def get_params(self, deep: bool = True) -> JsonObject:
        """Return the parameters, with the keys of a config that is a dict if `deep`."""
        params = super().get_params(deep=False)
        if deep and isinstance(self.config, Mapping):
            params |= {PREFIX + "__".join(path): value for path, value in _leaves(self.config, ())}
        return params

    def set_params(self, **params: Json) -> RecommenderEstimator:
        """Set parameters, and keys of the config by `config__section__key`. Returns the estimator."""
        keys = {name: params.pop(name) for name in list(params) if name.startswith(PREFIX)}
        super().set_params(**params)
        if keys:
            if not (self.config is None or isinstance(self.config, Mapping)):
                hint = "Give the config as a dict."
                raise InputError(Fault("config", "keys can be set only in a dict.", hint, "option"))
            config: JsonObject = copy.deepcopy(dict(self.config or {}))
            for name, value in keys.items():
                *sections, key = name.removeprefix(PREFIX).split("__")
                section = config
                for one in sections:
                    section = section.setdefault(one, {})
                section[key] = value
            self.config = config
        return self

    def fit(self, X: DataFrame, y: None = None) -> RecommenderEstimator:
        """Fit a recommender.

        Args:
            X: Interactions: a pandas, polars or Arrow table or a list of dicts with `user_id`, `item_id` and any of
                `interaction_type`, `timestamp`, `weight`, `rating` and `label`; or a Dataset, with its own records.
            y: Nothing: ratings and labels are columns of X.

        Raises:
            ConfigError: With all invalid keys.
            DataError: With every fault of the tables.
        """
        _refuse_targets(y)
        config, _ = read_config(self.config) if not isinstance(self.config, Config) else (self.config, [])
        dataset = self._dataset(X, config)
        self.recommender_ = Recommender.from_config(_learning_from_all(config, dataset))
        self.recommender_.fit(dataset, progress=self.progress)
        return self

    def predict(self, X: DataFrame) -> np.ndarray:
        """Return the scores of pairs of known users and items, (pairs,) float32. X: A table with both ids."""
        check_is_fitted(self, "recommender_")
        return self.recommender_.score(X).column("score").to_numpy()

    def recommend(self, users: Users = None, k: int = 10, *, to: Form = "arrow") -> DataFrame:
        """Return the k best items of each user, as `Recommender.recommend` does, which has more options."""
        check_is_fitted(self, "recommender_")
        return self.recommender_.recommend(users, k, to=to)

    def score(self, X: DataFrame, y: None = None) -> float:
        """Return `metric` of the positive interactions in X, which the lists of the model should contain.

        The model ranks all items for each user of X, without those that the user had when it was fitted. A user or item
        that it does not know counts as a miss: give `users` and `items`, so that all are known.

        Args:
            X: Interactions that the model was not fitted on, as for `fit`.
            y: Nothing.
        """
        _refuse_targets(y)
        check_is_fitted(self, "recommender_")
        metric = checked_choice(self.metric, self._metrics(), "metric")
        return self.evaluate(X)[metric]

    def evaluate(self, X: DataFrame) -> dict[str, float]:
        """Return all ranking metrics of the positive interactions in X, and the numbers of pairs and of misses."""
        check_is_fitted(self, "recommender_")
        model = self.recommender_.model
        held = self._dataset(X, model.config)
        positive = pa.array(label_interactions(held, model.config.data).positive)
        pairs = held.interactions.select(["user_id", "item_id"]).filter(positive).combine_chunks()
        users, items = (pairs.column(name).combine_chunks() for name in pairs.column_names)
        return metrics_of_pairs(model, users, items)

    def _metrics(self) -> list[str]:
        return ["auc", *(f"{name}@{k}" for name in RANKING_METRICS for k in self.recommender_.config.evaluation.k)]

    def _dataset(self, X: DataFrame, config: Config) -> Dataset:
        """Return interactions with the records of their users and items."""
        if isinstance(X, Dataset):
            return X
        table = as_arrow(X) if is_table(X) else pair_table(X)
        sides = {
            name: pa.table({f"{name}_id": table.column(f"{name}_id").unique()}) if given is None else given
            for name, given in (("user", self.users), ("item", self.items))
            if given is not None or f"{name}_id" in table.column_names
        }
        if len(sides) < 2:
            table = pair_table(table)  # raises the error for missing columns
        return Dataset.from_tables(sides["user"], sides["item"], table, config.data)


def cross_validate(
    config: Source,
    dataset: Dataset,
    splits: int | Sequence[str | JsonObject | SplitConfig] = 5,
    *,
    seed: int = 0,
    progress: bool = False,
    to: Form = "arrow",
) -> DataFrame:
    """Fit a model for each split, and measure it on the test part.

    Args:
        config: The config; its own `split` is not used.
        dataset: The data.
        splits: The number of folds: each positive interaction, drawn at random, is in the test part of one. Or the
            split of each fold: the name of a protocol, or a section `split` of the config, as {"protocol":
            "global_time", "test": 0.2}.
        seed: Seed of the folds; the config's `seed` is that of the training.
        progress: Show progress bars.
        to: Kind of the result: "arrow", "pandas" or "polars".

    Returns:
        For each fold: `fold`, `protocol`, the numbers of interactions `trained` and `tested`, `seconds`, and the
        metrics of the test part. A fold that could not be measured has no metrics, and a warning is logged.

    Raises:
        ConfigError: With all invalid keys.

    Example:
        >>> cross_validate({"model": {"type": "ease"}}, dataset, ["leave_last_out", "global_time", "cold_users"])
    """
    checked = config if isinstance(config, Config) else read_config({} if config is None else config)[0]
    dataset = dataset.sorted()
    rows = []
    with tempfile.TemporaryDirectory(prefix="anyrec-folds-") as folder:
        sections = (
            _folds(checked, dataset, splits, seed, Path(folder)) if isinstance(splits, int) else map(_section, splits)
        )
        for fold, section in enumerate(sections):
            started = time.perf_counter()
            recommender = Recommender.from_config(checked.model_copy(update={"split": section}))
            recommender.fit(dataset, progress=progress)
            measured = recommender.metrics.get("test", {})
            if not measured:
                notes = " ".join(recommender.notes)
                logging.getLogger("anyrec").warning("fold %d has no test metrics. %s", fold, notes)
            split = recommender.model.required_learning().split
            about = {"protocol": split.protocol, "trained": len(split.train), "tested": len(split.test)}
            rows.append({"fold": fold, **about, "seconds": time.perf_counter() - started, **measured})
    names = list(dict.fromkeys(name for row in rows for name in row))
    return in_form(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}), to)


def _learning_from_all(config: Config, dataset: Dataset) -> Config:
    """Return a config that tests on nothing and trains on what it validates on, unless it sets its split."""
    if "split" in config.model_fields_set:
        return config
    split = SplitConfig(protocol="auto" if has_clock(dataset) else "random", test=0.0)
    training = config.training
    if "refit" not in training.model_fields_set:
        training = training.model_copy(update={"refit": True})
    return config.model_copy(update={"split": split, "training": training})


def _folds(config: Config, dataset: Dataset, count: int, seed: int, folder: Path) -> Iterator[SplitConfig]:
    """Yield the splits of folds: each positive is in the test part of one, and a tenth of the others validates."""
    positive = np.flatnonzero(label_interactions(dataset, config.data).positive)
    if not 2 <= count <= len(positive):
        what = f"expected from 2 to {len(positive):,} folds, the number of positive interactions; found {count}."
        raise InputError(Fault("splits", what, "Give 5, say.", "option"))
    rng = np.random.default_rng(seed)
    for test in np.array_split(rng.permutation(positive), count):
        others = rng.permutation(np.setdiff1d(positive, test))
        validation = others[: int(SplitConfig().validation * len(others))]
        train = np.setdiff1d(np.arange(len(dataset.interactions)), np.concatenate([test, validation]))
        save_split(Split(train, np.sort(validation), np.sort(test), "folds"), dataset, folder)
        yield SplitConfig(file=str(folder / SPLIT))


def _section(split: str | JsonObject | SplitConfig) -> SplitConfig:
    """Return one of the splits of `cross_validate` as a section of the config."""
    section = {"protocol": split} if isinstance(split, str) else split
    return section if isinstance(section, SplitConfig) else read_config({"split": section})[0].split


def _leaves(section: Mapping[str, Json], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Yield the path and the value of each key of a config."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _refuse_targets(y: object) -> None:
    """Raise InputError if there are targets: in X they can be read by the rules of the config."""
    if y is not None:
        hint = "Put ratings or labels into X, as the column `rating` or `label`."
        raise InputError(Fault("y", "a recommender has no targets other than its interactions.", hint, "option"))
