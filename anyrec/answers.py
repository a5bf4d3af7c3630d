"""What a fitted model answers: lists, straight from the model or through the stages of a pipeline."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from anyrec.core.config import PipelineConfig
from anyrec.core.discovery import Registry
from anyrec.data.labels import label_interactions
from anyrec.data.split import Part, Split, hold_out_users, latest_of_pairs
from anyrec.model.arguments import checked_context, checked_k, checked_now, log
from anyrec.model.fitted import Known, Users
from anyrec.model.scoring import rank_rows

if TYPE_CHECKING:
    from anyrec.pipeline.pipeline import Answer, Pipeline
    from anyrec.retrieval.item_index import ItemIndex


class Answers(Known):
    """The part of `Recommender` that makes lists."""

    registry: Registry
    notes: list[str]
    pipeline: Pipeline | None  # type: ignore[assignment]
    """The stages between the model and a list; None where the model ranks the whole catalogue."""
    catalogue: ItemIndex | None
    """The index of the items' vectors, made when it is first searched."""
    widened: bool
    """Whether it knows items beside those that the model was fitted or saved with."""

    def recommend(
        self,
        users: Users = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Sequence[Any] | pa.Array | None = None,
        context: dict[str, Any] | None = None,
        now: int | None = None,
        interactions: Any = None,
        strict: bool | None = None,
    ) -> pa.Table:
        """List the k best items of each user. Equal scores are ordered by item id.

        Args:
            users: Ids known to the model, or records, whose ids need not be known: dicts, a pandas, polars or Arrow table, a
                Dataset, or a document of the data format. None for all known users.
            k: Items for each user. Fewer come back if fewer are eligible.
            exclude_seen: Leave out what the user interacted with, by the model's data and by the request.
            candidates: Ids of the only items to rank.
            context: As for `answer`; only a pipeline reads it.
            now: As for `answer`; only a pipeline reads it.
            interactions: What the users did up to now, a table or dicts (user_id, item_id, timestamp, ...). It extends what the
                model knows of them. A document's or a Dataset's own interactions are read in the same way.
            strict: Raise DataError for what the model cannot read, as unknown features. By default `data.strict` of the config;
                if false, each is logged as a warning.

        Returns:
            user_id, item_id, score, rank (from 1).

        Raises:
            DataError: For unknown ids without a record, or records that cannot be read.
        """
        records = self.read_records("user", users, interactions=interactions, strict=strict)
        if self.pipeline is not None:
            options = {"exclude_seen": exclude_seen, "candidates": candidates, "context": context, "now": now}
            answer = self.answer(records, k, **options)
            log(users, answer.warnings)
            return answer.table
        k = checked_k(k, len(self.dataset.items))
        allowed = self._allowed(candidates)
        with self._inference():
            ids, represented, _ = self._represent("user", records)
            exclude = self._had(records) if exclude_seen else None
            rows, items, scores, ranks = rank_rows(
                self.model, represented, self._known_rows("item"), k, exclude, allowed
            )
        log(users, records.context.warnings)
        return pa.table(
            {
                "user_id": ids.take(pa.array(rows)),
                "item_id": self.dataset.ids("item").take(pa.array(items)),
                "score": pa.array(scores),
                "rank": pa.array(ranks),
            }
        )

    def answer(
        self,
        users: Users = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Sequence[Any] | pa.Array | None = None,
        context: dict[str, Any] | None = None,
        now: int | None = None,
        trace: bool = False,
        interactions: Any = None,
        strict: bool | None = None,
    ) -> Answer:
        """List as `recommend` does, with the time of each stage, warnings, and on request a trace of the items.

        Without a pipeline in the config there is one stage, the model. Arguments that are not listed are those of `recommend`.

        Args:
            context: Values of this moment that rules may read.
            now: Microseconds since 1970; by default this moment.
            trace: Record what each stage did with each item.

        Returns:
            The lists, and in `warnings` what the model could not read of the request.
        """
        from anyrec.pipeline.pipeline import Pipeline

        k, context, now = checked_k(k, len(self.dataset.items)), checked_context(context), checked_now(now)
        users = self.read_records("user", users, interactions=interactions, strict=strict)

        pipeline = self.pipeline or Pipeline(PipelineConfig(), self.registry)
        options = {"exclude_seen": exclude_seen, "context": context, "now": now, "trace": trace}
        return pipeline.answer(self, users, k, candidates=self._allowed(candidates), **options)  # type: ignore[arg-type]

    def with_pipeline(self, pipeline: PipelineConfig | dict[str, Any] | None, *, progress: bool = True) -> Any:
        """This model behind other stages, which learn what they need; None for the model alone.

        Sources and a ranker learn from the data, so those need a model just fitted, or one that was given it again (`with_data`).
        Raises ConfigError with every bad option, ModelError where data are needed and not there.
        """
        from anyrec.core.load_config import load_config
        from anyrec.pipeline.fit import fit_pipeline

        given = pipeline.model_dump() if isinstance(pipeline, PipelineConfig) else pipeline
        other = copy.copy(self)
        other.config = load_config({**self.config.model_dump(mode="json"), "pipeline": given}, registry=self.registry)[
            0
        ]
        other._known, other.notes, other.pipeline = dict(self._known), list(self.notes), None
        fit_pipeline(other, progress=progress)  # type: ignore[arg-type]
        return other

    def evaluate_pipeline(self, part: Part = "test") -> dict[str, float]:
        """Ranking metrics of the lists that all stages give, by the rules of `evaluate`; what is not listed ranks nowhere."""
        from anyrec.pipeline.fit import measure_pipeline

        return measure_pipeline(self, part)  # type: ignore[arg-type]

    def learned_from(self) -> Split:
        """The split as the final model saw it: with `training.refit` the validation part is in the training part, but for
        what a ranker learns from."""
        assert self.split is not None
        if not self.config.training.refit:
            return self.split
        both = np.setdiff1d(np.union1d(self.split.train, self.split.validation), self.held_for_ranker())
        return Split(both, np.empty(0, np.int64), self.split.test, self.split.protocol)

    def positives_learned(self) -> np.ndarray:
        """(pairs,) the training positives of the final model, one interaction for each user-item pair: the latest.

        What sources, the ranker's item facts and the report's item counts learn from: no dislike counts, and a user who
        repeats an interaction counts once.
        """
        rows = self.learned_from().train
        positive = label_interactions(self.dataset, self.config.data).positive
        return latest_of_pairs(self.dataset, rows[positive[rows]])

    def held_for_ranker(self) -> np.ndarray:
        """Interactions of the validation part that the final model did not learn from, which a ranker may."""
        assert self.split is not None
        rank = self.config.pipeline.rank if self.config.pipeline else None
        if rank is None:
            return np.empty(0, np.int64)
        if not self.config.training.refit:
            return self.split.validation
        return hold_out_users(
            self.dataset.user_rows, self.split.validation, rank.training.holdout_fraction, self.config.seed
        )

    def _allowed(self, candidates: Sequence[Any] | pa.Array | None) -> np.ndarray | None:
        if candidates is None:
            return None
        allowed = np.zeros(len(self.dataset.items), bool)
        allowed[self._rows_of_ids("item", candidates)] = True
        return allowed
