"""The facade: fit, recommend, search, score, embed, evaluate, save, load. It composes a fitted model and a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from torch import nn

from anyrec.core.config import Component, Config, PipelineConfig
from anyrec.core.contracts import Context
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError, Fault, ModelError, NotFittedError, OutputError, checked_path
from anyrec.core.infer_types import with_types
from anyrec.core.launcher import copies
from anyrec.core.load_config import load_config, read_config, with_root
from anyrec.core.notebook import html_table, show_results_as_html
from anyrec.core.processes import processes
from anyrec.core.registry import Registry
from anyrec.core.runtime import seeded
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.data.formats.frames import DataFrame, Form, check_form, in_form
from anyrec.data.ids import Side
from anyrec.data.interpretation import interpretation
from anyrec.data.learning import LearningData
from anyrec.data.partial import request_of
from anyrec.data.sources.log_files import is_event_log
from anyrec.data.split import Part, Split
from anyrec.evaluation.heads import head_metrics
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.evaluation.repeats import repeat_notes
from anyrec.evaluation.slices import Slice, measure_slices
from anyrec.export.write import Export, export_model
from anyrec.model.arguments import checked_choice, checked_context, checked_dataset, checked_k, checked_now, log
from anyrec.model.attach_data import own_data, with_data
from anyrec.model.build import check_model_type, check_with_data, choose_device, training_context
from anyrec.model.check_index import has_vectors
from anyrec.model.custom_modules import encoder_of
from anyrec.model.fitted import FittedModel
from anyrec.model.join import Joined, join
from anyrec.model.model_data import ModelData
from anyrec.model.online_features import with_online_features
from anyrec.model.pair_tables import scored_table
from anyrec.model.reconfigure import changed_config
from anyrec.model.records import Records
from anyrec.model.request_reader import Users
from anyrec.model.result_tables import embedding_table, pair_scores
from anyrec.pipeline.answer import Answer
from anyrec.pipeline.conditions.conditions import fitting
from anyrec.pipeline.fit import check_pipeline, fit_stages, measure_pipeline, same_pipeline
from anyrec.pipeline.item_search import search_items
from anyrec.pipeline.pipeline import Pipeline
from anyrec.retrieval.best_items import ranked_table
from anyrec.retrieval.push import Pushed, push_items
from anyrec.retrieval.similar import similar
from anyrec.storage.hub import model_folder, push_to_hub
from anyrec.storage.load_model import load_model
from anyrec.storage.model_directory import save_model
from anyrec.storage.parts import ModelParts
from anyrec.training.final import fit_final
from anyrec.training.fit import fit_like
from anyrec.training.loop import FitOptions, TrainingResult
from anyrec.training.tracker import TrackedResult, Tracker
from anyrec.training.tracking import Tracking
from anyrec.training.update import Steps, take_steps

STALE = "Updated ({steps}). Its metrics, and the ranker of a pipeline, are those of the training before."
"""Note on a model that was updated with steps."""
NOT_JOINED = (
    "A launcher has started {count} processes (WORLD_SIZE), and each trains a model alone. `with joined():` lets them "
    "train one model together (docs/distributed.md)."
)
"""Note on a training by one of several processes that were not joined."""
TRACKED_FILES = ("report.html", "report.md", "figures", "metrics.jsonl", "config.json", "environment.json")
"""Files of a run's folder that trackers record."""
Ids: TypeAlias = Sequence[object] | pa.Array
"""Ids of users or items. They are validated when they are read."""


class Recommender:
    """A config, the fitted model, and the pipeline that turns the model's scores into lists.

    A method that needs a fitted model raises NotFittedError before `fit` or `load`. Methods that return a recommender
    leave this one unchanged, except `add_encoder` and `fit`, which return this one.

    Attributes:
        requested: The config as it was given.
        registry: The components.
        notes: Notes on the config, the data and the training for the user.
        device: The device of the model.
        pipeline: The stages between the model and a list; None if the model ranks the whole catalogue.
        result: The history of the training; None for a classical or a loaded model.
        metrics: Ranking metrics by part of the split.
        joined: What the `add` or `update` that made this recommender added; else None.
        updated: What the steps of the `update` that made this recommender did; else None.

    Example:
        >>> recommender = Recommender.from_config("cfg.json").fit(Dataset.read("data.json"))
        >>> recommender.recommend(["user 1"], k=10)
        >>> recommender.save("models/shop")
        >>> Recommender.load("models/shop").similar(["item 7"])
    """

    def __init__(self, config: Config, registry: Registry, notes: Sequence[str] = (), parts: ModelParts | None = None):
        """Use `from_config` or `load` instead.

        Args:
            config: The config, complete or not.
            registry: The components.
            notes: Notes on the config for the user.
            parts: A fitted model with its pipeline, metrics and notes; None for an unfitted recommender.

        Raises:
            ConfigError: If the config names an unknown model type, or a device that is not available.
        """
        check_model_type(config, registry)
        show_results_as_html()
        self.requested = config
        self.registry = registry
        self.notes: list[str] = [*notes, *(parts.notes if parts else ())]
        self.device = choose_device(config)
        self.pipeline: Pipeline | None = parts.pipeline if parts else None
        self.result: TrainingResult | None = None
        self.metrics: dict[str, dict[str, float]] = dict(parts.metrics) if parts else {}
        self.joined: Joined | None = None
        self.updated: Steps | None = None
        self._model: FittedModel | None = parts.model if parts else None

    def __repr__(self) -> str:
        config = self.config
        about = f"Recommender({config.name}: {config.model.type}, "
        if self._model is None:
            return f"{about}not fitted)"
        about += f"{len(self.dataset.users):,} users, {len(self.dataset.items):,} items"
        part, metric = next((one for one in ("test", "validation") if one in self.metrics), ""), config.training.metric
        value = self.metrics.get(part, {}).get(metric)
        return about + (")" if value is None else f", {part} {metric} {value:.4f})")

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the metrics of each part of the split."""
        names = list(dict.fromkeys(name for part in self.metrics.values() for name in part))
        rows = [(name, *(part.get(name) for part in self.metrics.values())) for name in names]
        return html_table(repr(self), ["metric", *self.metrics], rows)

    @classmethod
    def from_config(cls, config: Config | JsonObject | str | Path, plugins: Sequence[str | Path] = ()) -> Recommender:
        """Return an unfitted recommender.

        Args:
            config: A config, a dict, or the path of a JSON or YAML file.
            plugins: Folders of plugins, in addition to those that the config names.

        Raises:
            ConfigError: With all invalid keys.
        """
        if isinstance(config, Config):
            registry = discover([*config.plugins, *plugins])
            typed, notes = with_types(with_root(config), registry)
            return cls(typed, registry, notes)
        loaded, notes = load_config(config, plugins=plugins, encoders_may_follow=True)
        return cls(loaded, discover([*loaded.plugins, *plugins]), notes)

    def add_encoder(self, name: str, module: nn.Module) -> Recommender:
        """Encode the features of a group, numbers or lists of numbers, with a plain torch module.

        Args:
            name: The group.
            module: Maps (batch, width) float to (batch, any width) float. Each feature of the group gets a copy. A
                saved model names its class by import path, so it loads only with `trust_plugins=True`.

        Raises:
            ConfigError: If the module cannot be saved that way.
        """
        self.registry.add_class("encoder", encoder_of(name, module), f"add_encoder('{name}')")
        return self

    # State

    @property
    def model(self) -> FittedModel:
        """The fitted model. Raises NotFittedError before `fit` or `load`."""
        if self._model is None:
            raise NotFittedError
        return self._model

    @property
    def config(self) -> Config:
        """The config: as given before `fit`, and completed with the values chosen for the data after it."""
        return self.requested if self._model is None else self._model.config

    @property
    def is_fitted(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    @property
    def dataset(self) -> Dataset:
        """The users and items that the model knows, and the training interactions if it was not loaded without them."""
        return self.model.dataset

    @property
    def split(self) -> Split | None:
        """The split of the training data; None for a model loaded without it."""
        return self.model.split

    @property
    def parts(self) -> ModelParts:
        """The parts that a model directory has."""
        return ModelParts(self.model, self.pipeline, self.metrics, self.notes)

    def describe(self) -> list[str]:
        """Return a description of the model's parts in lines of text."""
        return self.model.describe()

    # Fitting

    def fit(
        self,
        dataset: Dataset | None = None,
        *,
        run_dir: Path | None = None,
        resume: bool = False,
        progress: bool = True,
        report: Callable[[JsonObject], None] | None = None,
        trained: Callable[[], object] | None = None,
        started: Callable[[FittedModel], None] | None = None,
        trackers: Sequence[Tracker] | Tracking = (),
    ) -> Recommender:
        """Complete the config from the data, split the data, train, and measure the validation and the test part.

        Processes that are joined (`anyrec.core.processes`) train together; the others than the first get towers only.

        Args:
            dataset: Users, items and interactions; by default the tables that the config names in `data.sources`.
            run_dir: Folder for checkpoints and metrics.jsonl; None to write neither.
            resume: Continue from the last checkpoint in `run_dir`.
            progress: Show progress bars.
            report: Called after each epoch with its entry of metrics.jsonl; that of a refit also has its `stage`.
            trained: Called when the model is complete, before it is measured, so that it can be saved first.
            started: Called with the untrained model before the first epoch.
            trackers: Record the training, in addition to those of the config; or all trackers as a `Tracking`, which
                the caller finishes. A tracker that fails is a warning.

        Returns:
            The recommender itself. If a part of the split cannot be measured, `metrics` lacks it and a note says why.

        Raises:
            ConfigError: For options that do not fit the data.
            DataError: If no positive interaction is left to train on.
        """
        if dataset is None:
            dataset = Dataset.from_sources(self.requested.data, self.registry)
        config, chosen = resolve_config(self.requested, checked_dataset(dataset), self.registry)
        chosen += check_with_data(config, self.registry, dataset, self.requested)
        dataset = dataset.sorted()
        meaning = interpretation(dataset, config.data)
        learning, notes = LearningData.make(dataset, config)
        self.notes += [*chosen, *notes, *(f"{one.text} {one.advice}" for one in meaning if one.level != "note")]
        trusted = self._model is None or self._model.context.trusted
        context = training_context(config, learning.dataset, self.device, trusted)
        self.metrics, self.pipeline, self.result, self._model = {}, None, None, None
        untrained = {"config": config, "registry": self.registry, "dataset": learning.dataset}
        self.notes += check_pipeline(ModelData(**untrained, has_vectors=has_vectors(config, self.registry)))
        together = processes()
        self.notes += [NOT_JOINED.format(count=copies())] if together.alone and copies() > 1 else []
        if not together.first:
            self._train(learning, config, context, FitOptions(run_dir, resume, progress=False, processes=together))
            return self
        with self._tracking(trackers, config, run_dir, resume, trusted) as tracking:
            tracking.start(config)
            options = FitOptions(run_dir, resume, progress, tracking.reporting(report), started, together)
            self._train(learning, config, context, options)
            self._complete(progress, trained)
            if tracking is not trackers:
                tracking.finish(self.tracked_result(run_dir))
        return self

    def _complete(self, progress: bool, trained: Callable[[], object] | None) -> None:
        """Fit the stages after the model, call `trained`, and measure; arguments as for `fit`."""
        self._model, self.pipeline, notes = fit_stages(self.model, progress)
        self.notes += notes
        if trained is not None:
            trained()
        if not self.model.refitted:
            self._measure_part("validation")
        self._measure_part("test")

    def _tracking(
        self,
        trackers: Sequence[Tracker] | Tracking,
        config: Config,
        run_dir: Path | None,
        resume: bool,
        trusted: bool,
    ) -> Tracking:
        """Return the trackers of a training; those of the config only if it is the user's own."""
        if isinstance(trackers, Tracking):
            return trackers
        if config.tracking and not trusted:
            self.notes.append("'tracking' is left out, because the model is not trusted.")
            config = config.model_copy(update={"tracking": {}})
        return Tracking.of(config, self.registry, trackers, folder=run_dir, resume=resume)

    def tracked_result(
        self, folder: Path | None = None, metrics: Mapping[str, Mapping[str, float]] | None = None
    ) -> TrackedResult:
        """Return what trackers record of the fitted model.

        Args:
            folder: The run's folder, whose report is recorded; None for none.
            metrics: Metrics by part of the split; by default `metrics`.
        """
        files = [] if folder is None else [path for name in TRACKED_FILES if (path := folder / name).exists()]
        return TrackedResult(self.model, metrics or self.metrics, self.save, self.model.directory, folder, files)

    def _train(self, learning: LearningData, config: Config, context: Context, options: FitOptions) -> None:
        """Train the model; if a part of it learns from validation as well, measure validation before that."""

        def measure(model: FittedModel) -> dict[str, float]:
            self._model = model
            self._measure_part("validation")
            return self.metrics.get("validation", {})

        fitted = fit_final(config, learning, self.registry, context, options, measure)
        self._model, self.result = fitted.model, fitted.result
        self.notes = list(dict.fromkeys([*self.notes, *fitted.notes]))

    def fit_like(self, config: Config) -> Recommender:
        """Return another recommender, fitted with another config on the training data of this one, such as a baseline.

        Args:
            config: Complete config of a classical model.

        Raises:
            ModelError: If this model was loaded without its data.
        """
        fitted = fit_like(self.model, config)
        return Recommender(config, self.registry, parts=ModelParts(fitted.model, notes=fitted.notes))

    def with_data(self, dataset: Dataset | None = None) -> Recommender:
        """Return this recommender with the data it was trained on, so that it can be evaluated. The split is the same.

        Args:
            dataset: The training data; by default the tables that the config names in `data.sources`, for which the
                model must be loaded with `trust_plugins`.

        Raises:
            DataError: If this is not the data that it was trained on.
            ModelError: If the model is not trusted and `dataset` is not given.
        """
        dataset = own_data(self.model) if dataset is None else dataset
        model, notes = with_data(self.model, checked_dataset(dataset))
        return self._with(replace(self.parts, model=model, notes=[*self.notes, *notes]))

    def with_pipeline(self, pipeline: PipelineConfig | JsonObject | None, *, progress: bool = True) -> Recommender:
        """Return this model with another pipeline, which is fitted here.

        Args:
            pipeline: The pipeline's config; None for the model alone. Sources and a ranker learn from the data, so they
                need a model with its data: just fitted, or from `with_data`.
            progress: Show progress bars.

        Raises:
            ConfigError: With all invalid options.
            ModelError: If a stage needs the data and the model does not have it.
        """
        section = pipeline.model_dump() if isinstance(pipeline, PipelineConfig) else pipeline
        config, _ = load_config({**self.config.model_dump(mode="json"), "pipeline": section}, registry=self.registry)
        model, stages, notes = fit_stages(self.model.with_config(config), progress)
        return self._with(ModelParts(model, stages, self.metrics, [*self.notes, *notes]))

    def filtered(self, where: JsonObject) -> Recommender:
        """Return this recommender with lists of items that meet a condition, in addition to the pipeline's own filters.

        Args:
            where: A condition on features of items, users and the moment (docs/rules.md), for example
                {"item.continuous.price": {"lt": 20}}.

        Raises:
            ConfigError: If the condition is not well formed, or does not fit the data.
        """
        fitting(where, self.model, "--where")
        stages = self.stages().with_filter(Component.model_validate({"type": "where", "where": where}), self.registry)
        config = self.config.model_copy(update={"pipeline": stages.config})
        return self._with(replace(self.parts, model=self.model.with_config(config), pipeline=stages))

    def add_items(self, items: Users, *, replace_known: bool = False, strict: bool | None = None) -> Recommender:
        """Return a recommender that also ranks new items, by their features and without training.

        Args:
            items: Records in any form that `recommend` accepts. Items with known ids keep their own record.
            replace_known: Give items with known ids these records instead. Their vectors are computed again, and so is
                the index; the vectors of known users stay.
            strict: As for `recommend`.

        Raises:
            DataError: For invalid records, and for ids of another type than the model's.
        """
        records = self.read_records("item", items, strict=strict)
        wider = self._with(replace(self.parts, model=self.model.with_items(records, replace_known=replace_known)))
        log(items, records.context.warnings)
        return wider

    def add(self, data: Users, *, replace_known: bool = False, strict: bool | None = None) -> Recommender:
        """Return a recommender that also knows the users, items and interactions of new data, without training.

        The same as `add_items` and then `add_users` with the items and the users of the data.

        Args:
            data: A Dataset, a document of the data format, or the path of a file, a folder, or the log of a server.
                Known users need no record for their interactions.
            replace_known: As for `add_items`. Of a server's log, the records that were put always replace the own ones.
            strict: As for `recommend`.

        Raises:
            DataError: For invalid records, and for ids of another type than the model's.
            InputError: If there are new items and the model can only score those it was fitted on.
        """
        return self._join(data, replace_known, strict)[0]

    def update(
        self, data: Users, *, replace_known: bool = False, strict: bool | None = None, progress: bool = True
    ) -> Recommender:
        """Return a recommender that also knows new data, and has learned from its interactions if that helps.

        The data joins as by `add`. Then the towers are trained on the new interactions for a few epochs (`update` of
        the config). The last of the new interactions by time are held out, and the steps are kept only if they improve
        `training.metric` on them. Steps change the vectors of all users and items, and the index is built again.

        Args:
            data: As for `add`.
            replace_known: As for `add_items`.
            strict: As for `recommend`.
            progress: Show progress bars.

        Returns:
            The recommender; its `updated` has the metric before and after, and says whether the steps were kept. With
            steps it cannot be evaluated on the split of its training, as it has learned from later data.

        Raises:
            DataError: As for `add`.
            InputError: As for `add`.

        Example:
            >>> newer = recommender.update(Path("this-week.json"))
            >>> print(newer.updated)
        """
        wider, joined, request = self._join(data, replace_known, strict)
        steps = take_steps(joined, request, progress=progress)
        notes = [*self.notes, *([STALE.format(steps=steps)] if steps.kept else [])]
        other = self._with(replace(wider.parts, model=steps.model, notes=notes))
        other.joined, other.updated = wider.joined, steps
        return other

    def add_users(self, users: Users, *, interactions: object = None, strict: bool | None = None) -> Recommender:
        """Return a recommender that also knows new users, and what known users did since, without training.

        Lists, scores and embeddings are those that a request with the same records and interactions gets: the towers
        encode the features and the history, and models of histories and factorisations read the history
        (docs/requests.md). Weights and counts of the training stay as they are.

        Args:
            users: Records in any form that `recommend` accepts, with interactions if it is a Dataset or a document. A
                known user keeps the own record where the new one has no values.
            interactions: Interactions of the users, a table or dicts. They extend what the model knows of the users.
            strict: As for `recommend`.

        Raises:
            DataError: For invalid records, and for ids of another type than the model's.

        Example:
            >>> wider = recommender.add_users([{"user_id": "ann"}], interactions=[{"user_id": "ann", "item_id": "i1"}])
            >>> wider.recommend(["ann"])
        """
        records = self.read_records("user", users, interactions=interactions, strict=strict)
        wider = self._with(replace(self.parts, model=self.model.with_users(records)))
        log(users, records.context.warnings)
        return wider

    # Lists

    def recommend(
        self,
        users: Users = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Ids | None = None,
        context: JsonObject | None = None,
        now: int | None = None,
        interactions: object = None,
        strict: bool | None = None,
        to: Form = "arrow",
    ) -> DataFrame:
        """List the k best items of each user. Equal scores are ordered by item id.

        Args:
            users: Known ids, or records of known or new users: dicts, a pandas, polars or Arrow table, a Dataset, or a
                document of the data format. None for all known users.
            k: Items for each user. A user with fewer eligible items gets fewer.
            exclude_seen: Leave out items that the user interacted with, by the model's data and by the request.
            candidates: Ids of the only items to rank; by default all.
            context: As for `answer`; only a pipeline reads it.
            now: As for `answer`; only a pipeline reads it.
            interactions: Interactions of the users up to now, a table or dicts (user_id, item_id, timestamp, ...). They
                extend the known histories, like the interactions of a document or a Dataset in `users`.
            strict: Raise DataError for parts that the model cannot read, such as unknown features. By default
                `data.strict` of the config; if false, each is logged as a warning.
            to: Kind of the table: "arrow", "pandas" or "polars".

        Returns:
            user_id, item_id, score, rank (from 1). The metadata of its schema name the index that the items were found
            by, as `Answer.index`.

        Raises:
            DataError: For unknown ids without a record, and for invalid records.
        """
        check_form(to)
        records = self.read_records("user", users, interactions=interactions, strict=strict)
        if self.pipeline is not None:
            options = {"exclude_seen": exclude_seen, "candidates": candidates, "context": context, "now": now}
            answer = self.answer(records, k, **options)
            log(users, answer.warnings)
            return in_form(answer.table, to)
        k, allowed = checked_k(k, len(self.dataset.items)), self.model.mask_of(candidates)
        table = ranked_table(self.model, records, k, exclude_seen=exclude_seen, allowed=allowed)
        log(users, records.context.warnings)
        return in_form(table, to)

    def answer(
        self,
        users: Users = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Ids | None = None,
        context: JsonObject | None = None,
        now: int | None = None,
        trace: bool = False,
        interactions: object = None,
        strict: bool | None = None,
    ) -> Answer:
        """List as `recommend` does, with the time of each stage, the warnings, and optionally a trace.

        Without a pipeline in the config the model is the only stage. The other arguments are those of `recommend`.

        Args:
            context: Values that rules read, such as the user's country.
            now: The time of the request in microseconds since 1970; by default the current time.
            trace: Record what each stage did with each item.

        Returns:
            The lists. `warnings` says which parts of the request the model could not read.
        """
        k, context, now = checked_k(k, len(self.dataset.items)), checked_context(context), checked_now(now)
        records = self.read_records("user", users, interactions=interactions, strict=strict)
        return self.stages().answer(
            self.model,
            records,
            k,
            candidates=self.model.mask_of(candidates),
            exclude_seen=exclude_seen,
            context=context,
            now=now,
            trace=trace,
        )

    def stages(self) -> Pipeline:
        """Return the pipeline, or one whose only stage is the model."""
        return self.pipeline or Pipeline(PipelineConfig(), self.registry)

    def search(
        self,
        *,
        text: str | None = None,
        image: str | Path | None = None,
        user: object = None,
        k: int = 10,
        space: str = "auto",
        where: JsonObject | None = None,
        personal: float = 0.3,
        exclude_seen: bool = False,
        candidates: Ids | None = None,
        strict: bool | None = None,
        to: Form = "arrow",
    ) -> DataFrame:
        """Return the k items nearest to a text, an image or both: item_id, score, rank (from 1).

        Args:
            text: A description of the items.
            image: A file, or a URL if the config allows it.
            user: An id, a record (a dict), or one that was read before. The model's score then has the weight
                `personal`; without a user the score is the cosine.
            k: Items to return.
            space: "auto", "joint", "text", "image", "visual" or "tower" (docs/search.md).
            where: A condition on items (docs/rules.md).
            personal: Weight of the model's score, from 0 to 1.
            exclude_seen: Leave out items that the user interacted with.
            candidates: Ids of the only items to return; by default all.
            strict: As for `recommend`.
            to: As for `recommend`.

        Raises:
            InputError: If the items have no vectors to search, and for an empty text or an unreadable image.
        """
        check_form(to)
        found = search_items(
            self.model,
            text=text,
            image=image,
            user=user,
            k=k,
            space=space,
            where=where,
            personal=personal,
            exclude_seen=exclude_seen,
            candidates=candidates,
            strict=strict,
        )
        return in_form(found, to)

    def similar(self, items: Ids, k: int = 10, *, to: Form = "arrow") -> DataFrame:
        """Return the k items most similar to each of `items`: query_id, item_id, score, rank (from 1).

        The score is the cosine of item vectors. A classical model has its own similarity, or none.

        Args:
            items: Known ids.
            k: Items for each id, the item itself excluded.
            to: As for `recommend`.

        Raises:
            InputError: If the model has no similarity of items.
        """
        check_form(to)
        return in_form(similar(self.model, items, checked_k(k, len(self.dataset.items))), to)

    def push_items(
        self,
        address: str,
        *,
        fields: Sequence[str] = (),
        remove_stale: bool = False,
        batch_size: int = 1000,
        progress: bool = True,
    ) -> Pushed:
        """Store the item vectors in a vector database; arguments as for `anyrec.retrieval.push.push_items`."""
        options = {"remove_stale": remove_stale, "batch_size": batch_size, "progress": progress}
        return push_items(self.model, address, fields=fields, **options)

    # Scores and embeddings

    def score(self, pairs: object, *, to: Form = "arrow") -> DataFrame:
        """Score pairs of known users and items.

        Args:
            pairs: A pandas, polars or Arrow table, or a list of dicts, with user_id and item_id.
            to: As for `recommend`.

        Returns:
            The pairs, with the columns `score` and one for each head's prediction.

        Raises:
            DataError: For ids that the model does not know.
        """
        check_form(to)
        return in_form(scored_table(pairs, self.model.rows_of, partial(self.score_rows, None)), to)

    def score_rows(self, users: Users, user_rows: np.ndarray, item_rows: np.ndarray) -> dict[str, pa.Array]:
        """Return `score` and each head's prediction for pairs of rows, (pairs,) each.

        Args:
            users: As for `recommend`.
            user_rows: (pairs,) rows of `users`.
            item_rows: (pairs,) rows of the known items.
        """
        return pair_scores(self.model, self.read_records("user", users), user_rows, item_rows)

    def embed_users(self, users: Users = None, *, strict: bool | None = None, to: Form = "arrow") -> DataFrame:
        """Return user_id and `embedding` (fixed-size list of float32) of known or new users.

        Args:
            users: As for `recommend`.
            strict: As for `recommend`.
            to: As for `recommend`.

        Raises:
            InputError: If the model has no vectors.
        """
        return self._embed("user", users, strict, to)

    def embed_items(self, items: Users = None, *, strict: bool | None = None, to: Form = "arrow") -> DataFrame:
        """Return item_id and `embedding` (fixed-size list of float32) of known or new items.

        Args:
            items: In any form that `recommend` accepts for users.
            strict: As for `recommend`.
            to: As for `recommend`.

        Raises:
            InputError: If the model has no vectors.
        """
        return self._embed("item", items, strict, to)

    def read_records(
        self,
        side: Side,
        source: Users,
        *,
        interactions: object = None,
        strict: bool | None = None,
        faults: list[Fault] | None = None,
    ) -> Records:
        """Read users or items once, to pass them to several methods; arguments as for `RequestReader.read`.

        Users get the online features that they do not have themselves, if the config names a server (`feast`).
        """
        source = with_online_features(self.model, source) if side == "user" else source
        return self.model.read_records(side, source, interactions=interactions, strict=strict, faults=faults)

    # Evaluation

    def evaluate(self, split: Part = "test") -> dict[str, float]:
        """Return the ranking metrics of the lists that `recommend` would have returned before a part of the split.

        Each held-out item is ranked among the full catalogue without the items that its user had seen: in training, and
        for the test part also in validation. A held-out item that the user had seen cannot be listed;
        `evaluation.repeats` decides how it counts.

        Args:
            split: "validation" or "test".

        Returns:
            Means over users by metric. For a model that was refitted on the validation part, these are the validation
            metrics from before the refit, since the refitted model has learned from that part.

        Raises:
            ModelError: If the model was loaded without its data.
        """
        checked_choice(split, ("validation", "test"), "split")
        if self.model.refitted and split == "validation":
            return dict(self.metrics.get("validation", {}))
        return ranking_metrics(rank_held_out(self.model, split), self.config.evaluation.k)

    def evaluate_slices(self, part: Part = "test") -> list[Slice]:
        """Return all metrics by groups of users and items: by training interactions, history and categorical features.

        Args:
            part: "validation" or "test".

        Raises:
            ModelError: If the model was loaded without its data, or was refitted on the validation part.
        """
        checked_choice(part, ("validation", "test"), "part")
        return measure_slices(self.model, part)

    def evaluate_heads(self, part: Part = "test") -> dict[str, JsonObject]:
        """Return the metrics of each head on the positives of a part of the split, as `head_metrics` does."""
        checked_choice(part, ("validation", "test"), "part")
        return head_metrics(self.model, part)

    def evaluate_pipeline(self, part: Part = "test") -> dict[str, float]:
        """Return the ranking metrics of the pipeline's lists, as `evaluate` does; an unlisted item is a miss."""
        return measure_pipeline(self.model, self.stages(), part)

    # Files

    def save(self, directory: str | Path) -> Path:
        """Write the model directory completely or not at all, without pickle.

        Args:
            directory: The folder. A model in it is replaced.

        Returns:
            The folder, as an absolute path.

        Raises:
            ModelError: If the folder has other content.
            OutputError: If it cannot be written.
        """
        return save_model(self.parts, checked_path(directory, "directory", OutputError))

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        trust_plugins: bool = False,
        plugins: Sequence[str | Path] = (),
        image_root: str | Path | None = None,
    ) -> Recommender:
        """Read a model directory.

        Args:
            directory: The model's folder, the folder of its training run, or a file in either.
            trust_plugins: Allow references to things outside the folder: plugins, modules given to `add_encoder`, files
                and addresses of rules and indexes, paths of pretrained models, the folder of images (docs/security.md).
            plugins: Folders of plugins that the model may use, in addition to `./plugins`.
            image_root: Folder that relative names of images start from; by default that of the training data.

        Raises:
            ModelError: With all faults, if the directory is damaged or the model needs `trust_plugins`.
        """
        with seeded(0):  # layers are created with random weights before the saved ones are loaded
            parts = load_model(checked_path(directory, "directory", ModelError), trust_plugins, plugins, image_root)
        return cls(parts.model.config, parts.model.registry, parts=parts)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the model directory, as `save` does."""
        return self.save(directory)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        trust_plugins: bool = False,
        plugins: Sequence[str | Path] = (),
        image_root: str | Path | None = None,
    ) -> Recommender:
        """Read a model directory, or download a model of the Hugging Face Hub (docs/hub.md).

        Args:
            model: A folder, as for `load`, or OWNER/NAME of the Hub. A folder of this name goes first.
            revision: Branch, tag or commit of the Hub.
            token: Token of the Hub; by default HF_TOKEN or the one that was saved by logging in.
            trust_plugins: As for `load`; a downloaded model is not trusted either.
            plugins: As for `load`.
            image_root: As for `load`.

        Raises:
            ModelError: As for `load`, and if the Hub has no such model or cannot be reached.
        """
        folder = model_folder(model, revision, token)
        return cls.load(folder, trust_plugins=trust_plugins, plugins=plugins, image_root=image_root)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = True,
        revision: str | None = None,
        message: str | None = None,
        token: str | None = None,
    ) -> str:
        """Publish the model on the Hugging Face Hub; arguments as for `anyrec.storage.hub.push_to_hub`.

        Example:
            >>> recommender.push_to_hub("me/shop")  # private, since a model holds the records of its users
            >>> Recommender.from_pretrained("me/shop")
        """
        options = {"private": private, "revision": revision, "message": message, "token": token}
        return push_to_hub(self.parts, repository, **options)

    def export(self, directory: str | Path, *, without: Sequence[str] = (), users: bool = True) -> Export:
        """Write the model as ONNX graphs with its preprocessing, which `anyrec.export.load` reads without torch.

        Args:
            directory: The folder. An export in it is replaced.
            without: Parts to leave out. Without "pipeline" lists are those of the model alone, without "blend" those of
                the towers alone; without "heads" the export scores and lists.
            users: Whether to write the known users, their vectors and their histories.

        Returns:
            The files, notes, and the largest difference between the graphs and the model.

        Raises:
            InputError: With every reason why the model cannot be exported.
            ModelError: If the folder has other content.
            OutputError: If it cannot be written.
            MissingDependency: If the extra `export` is not installed.

        Example:
            >>> recommender.export("exports/shop")
            >>> anyrec.export.load("exports/shop").recommend(["user 1"])
        """
        place = checked_path(directory, "directory", OutputError)
        return export_model(self.parts, place, without=without, users=users)

    def with_image_root(self, folder: Path) -> Recommender:
        """Return this recommender with another folder that relative names of images in requests start from."""
        data = self.config.data.model_copy(update={"image_root": str(folder)})
        config = self.config.model_copy(update={"data": data})
        return self._with(replace(self.parts, model=self.model.with_config(config)))

    def with_config(self, config: Config | JsonObject | str | Path, *, progress: bool = True) -> Recommender:
        """Return this recommender with other values of keys that are read after training.

        These are `pipeline`, `evaluation`, `index`, and `strict`, `image_root`, `allow_urls` and `allow_outside_root`
        of `data`. Keys that `config` does not set keep their values. It may set other keys to the values that the model
        was trained with, so the config of the training run can be changed and given again. Rules need no training; for
        other sources or another ranker the model needs its data (`with_data`).

        Args:
            config: A config, a dict, or the path of a file. The plugins of the model are known; others are named when
                it is loaded.
            progress: Show progress bars.

        Raises:
            ConfigError: With every key that cannot change after training, or with all invalid options.
            ModelError: If a stage of the pipeline learns from the data, and the model was loaded without it.

        Example:
            >>> rules = [{"type": "where", "where": {"item.categorical.kind": {"eq": "book"}}}]
            >>> Recommender.load("models/shop").with_config({"pipeline": {"rerank": {"rules": rules}}})
        """
        changes, notes = (config, []) if isinstance(config, Config) else read_config(config)
        changed = changed_config(self.config, changes, self.registry, self.dataset)
        model, pipeline = self.model.with_config(changed), self.pipeline
        if not same_pipeline(changed, self.config):
            model, pipeline, more = fit_stages(model, progress, self.pipeline)
            notes = [*notes, *more, *([] if pipeline is None else pipeline.notes(model))]
        return self._with(ModelParts(model, pipeline, self.metrics, [*self.notes, *notes]))

    def saved_in(self, directory: Path, model_id: str) -> None:
        """Record the folder and the id (`model_id`) that the model was saved with."""
        self._model = self.model.saved_in(directory, model_id)

    # Helpers

    def _join(self, data: Users, replace_known: bool, strict: bool | None) -> tuple[Recommender, Joined, Dataset]:
        """Add data; arguments as for `add`. Returns the recommender, what joined, and the data as it was read."""
        request = request_of("user", data, self.dataset, self.config.data, joins=True)
        if not isinstance(request, Dataset):
            what = "these are ids of users, which bring nothing to add."
            raise DataError(Fault("data", what, "Give a Dataset, a document or the path of a file.", "shape"))
        replace_known = replace_known or (isinstance(data, Path) and is_event_log(data))  # what was put last counts
        joined = join(self.model, request, replace_known=replace_known, strict=strict)
        wider = self._with(replace(self.parts, model=joined.model))
        wider.joined = joined
        log(data, joined.notes)
        return wider, joined, request

    def _with(self, parts: ModelParts) -> Recommender:
        """Return a recommender with other parts and the requested config of this one."""
        other = Recommender(parts.model.config, self.registry, parts=parts)
        other.requested, other.result = self.requested, self.result
        return other

    def _measure_part(self, part: Part) -> None:
        """Measure a part of the split. If it fails, a note says why: training must not be lost by it."""
        split = self.model.required_learning().split
        if not len(split.rows(part)):
            return
        try:
            metrics = self.evaluate(part)
            if metrics:
                self.metrics[part] = metrics
            if part == "test" or not len(split.test):
                self.notes += repeat_notes(self.model, part)
        except Exception as error:
            self.notes.append(f"The {part} part could not be measured ({type(error).__name__}: {error}).")

    def _embed(self, side: Side, source: Users, strict: bool | None, to: Form) -> DataFrame:
        check_form(to)
        records = self.read_records(side, source, strict=strict)
        table = embedding_table(self.model, records)
        log(source, records.context.warnings)
        return in_form(table, to)
