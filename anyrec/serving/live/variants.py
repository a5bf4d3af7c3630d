"""The variants of experiments: the models that make their lists, and the log of what was shown."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec

from anyrec.core.config import ExperimentConfig, VariantConfig
from anyrec.core.errors import AnyrecError, OutputError
from anyrec.core.types import JsonObject
from anyrec.recommender import Recommender
from anyrec.serving.experiments.assignment import Assignment
from anyrec.serving.live.event_log import EventLog
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.query import Listing, Query
from anyrec.serving.live.served import Served

EXPOSURES = "exposures"
"""Folder of the log of shown lists, in the folder of the log of events."""
MOST_WAITING = 100
"""Batches of queries that wait for shadow variants; further ones are left out, so that these never slow the others."""


class Variants:
    """The models of all variants, and what they showed.

    Args:
        experiments: The experiments.
        folder: Folder of the log of shown lists; None to log nothing.

    Attributes:
        others: The other models of variants, by their folders.
        log: The log of shown lists; None without one.

    Raises:
        ModelError: If another model of a variant cannot be loaded.
    """

    def __init__(self, experiments: Sequence[ExperimentConfig], folder: Path | None):
        self._experiments = {one.name: one for one in experiments}
        self._settings = {one.name: _settings(one) for one in experiments}
        paths = {v.model for one in experiments for v in one.variants.values() if v.model is not None}
        self.others = {path: Served.of(Recommender.load(path)) for path in sorted(paths)}
        self.log = EventLog(folder, "interval") if folder is not None and experiments else None
        self._shadows = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._waiting: list[Future[None]] = []

    def of(self, assignment: Assignment | None, served: Served) -> Served:
        """Return the model of a variant; `served` for no experiment.

        Args:
            assignment: The variant.
            served: The version that serves now.

        Raises:
            ConfigError: For changes that do not fit the model.
        """
        if assignment is None:
            return served
        return self._model(self._experiments[assignment.experiment].variants[assignment.variant], served)

    def check(self, served: Served) -> None:
        """Make the models of all variants. Raises ConfigError for changes that do not fit."""
        for experiment in self._experiments.values():
            for variant in experiment.variants.values():
                self._model(variant, served)

    def prepare(self, change: JsonObject) -> dict[str, Recommender | None]:
        """Compute the vectors of a change of records by each of `others`, as `Served.prepare` does."""
        return {path: one.prepare(change)[0] for path, one in self.others.items()}

    def change(self, change: JsonObject, wider: dict[str, Recommender | None]) -> None:
        """Change the records of `others`. wider: as `prepare` returned it; empty without items."""
        self.others = {path: one.with_change(change, wider.get(path)) for path, one in self.others.items()}

    def shown(
        self,
        assignment: Assignment,
        answers: Sequence[tuple[Query, Listing | AnyrecError]],
        served: Served,
        histories: Histories,
    ) -> None:
        """Log the lists of users of a variant, and let the shadow variants of the experiment answer as well."""
        if self.log is None:
            return
        experiment = self._experiments[assignment.experiment]
        lists = [(query, listing) for query, listing in answers if isinstance(listing, Listing)]
        try:
            self.log.append([self._entry(experiment, assignment.variant, query, one) for query, one in lists])
        except OutputError as error:  # the user has the list all the same, and /readyz says it
            logging.getLogger("anyrec.serving").error("lists that were shown are not logged: %s", error)
        self._waiting = [one for one in self._waiting if not one.done()]
        for name, variant in experiment.variants.items():
            if variant.shadow and len(self._waiting) < MOST_WAITING:
                model = self._model(variant, served)
                self._waiting.append(self._shadows.submit(self._shadow, experiment, name, model, lists, histories))

    def close(self) -> None:
        """Wait for the shadow variants, and close the log."""
        self._shadows.shutdown()
        if self.log is not None:
            self.log.close()

    def _model(self, variant: VariantConfig, served: Served) -> Served:
        base = served if variant.model is None else self.others[variant.model]
        if not variant.config:
            return base
        return base.changed_by(variant.config)

    def _shadow(
        self,
        experiment: ExperimentConfig,
        name: str,
        model: Served,
        lists: Sequence[tuple[Query, Listing]],
        histories: Histories,
    ) -> None:
        """Log what a shadow variant would have shown."""
        assert self.log is not None
        try:
            found = model.lists([query for query, _ in lists], histories)
            entries = [
                self._entry(
                    experiment, name, query, replace(one, recommendation_id=shown.recommendation_id), shadow=True
                )
                for (query, shown), one in zip(lists, found, strict=True)
                if isinstance(one, Listing)
            ]
            self.log.append(entries)
        except Exception:
            logging.getLogger("anyrec.serving").exception("the shadow variant %s of %s failed", name, experiment.name)

    def _entry(
        self, experiment: ExperimentConfig, variant: str, query: Query, listing: Listing, shadow: bool = False
    ) -> JsonObject:
        """Return what the log says of one list."""
        return {
            "recommendation_id": listing.recommendation_id,
            "user_id": query.user_id,
            "experiment": experiment.name,
            "variant": variant,
            "shadow": shadow,
            "time": time.time(),
            "items": [item.item_id for item in listing.items],
            "shares": {name: one.share for name, one in experiment.variants.items() if not one.shadow},
            "settings": self._settings[experiment.name],
        }


def _settings(experiment: ExperimentConfig) -> str:
    """Return a short hash of what decides who sees what: the salt and the variants that are shown.

    The traffic is left out: another share of the users take part, but nobody gets another variant.
    """
    shown = {name: one.model_dump() for name, one in experiment.variants.items() if not one.shadow}
    data = msgspec.json.encode([experiment.salt or experiment.name, list(shown.items())])
    return hashlib.sha256(data).hexdigest()[:12]
