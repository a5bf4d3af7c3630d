"""The facade: fit, recommend, search, score, embed, evaluate, save, load. It composes a fitted model and a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.core.config import TWO_TOWER, Config, DataConfig, PipelineConfig
from anyrec.core.contracts import Context
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError, Fault, ModelError, NotFittedError, OutputError, checked_path
from anyrec.core.load_config import load_config
from anyrec.core.registry import Registry
from anyrec.core.runtime import seeded
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.data.formats.frames import as_arrow, is_table
from anyrec.data.ids import Side
from anyrec.data.interpretation import interpretation
from anyrec.data.learning import LearningData
from anyrec.data.partial import read_partial
from anyrec.data.split import Part, Split
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.evaluation.repeats import repeat_notes
from anyrec.model.arguments import checked_choice, checked_context, checked_dataset, checked_k, checked_now, log
from anyrec.model.attach_data import with_data
from anyrec.model.build import check_model_type, check_with_data, choose_device
from anyrec.model.custom_modules import encoder_of
from anyrec.model.fitted import FittedModel, ModelData
from anyrec.model.records import Records
from anyrec.model.request_reader import Users
from anyrec.model.scoring import rank_rows
from anyrec.pipeline.answer import Answer
from anyrec.pipeline.fit import check_pipeline, fit_pipeline, measure_pipeline
from anyrec.pipeline.item_search import search_items
from anyrec.pipeline.pipeline import Pipeline
from anyrec.retrieval.similar import similar
from anyrec.storage.load_model import load_model
from anyrec.storage.model_directory import save_model
from anyrec.storage.parts import ModelParts
from anyrec.training.fit import FitOptions, Fitted, fit, fit_like
from anyrec.training.loop import TrainingResult


class Recommender:
    """A config, the fitted model, and the pipeline that makes lists of what the model scores.

    Example:
        >>> recommender = Recommender.from_config("cfg.json").fit(Dataset.read("data.json"))
        >>> recommender.recommend(["user 1"], k=10)
    """

    def __init__(self, config: Config, registry: Registry, notes: Sequence[str] = (), parts: ModelParts | None = None):
        """Use `from_config` or `load` instead.

        Args:
            config: The config, complete or not.
            registry: The components.
            notes: What the user should know of the config.
            parts: A fitted model with what belongs to it, whose notes come after `notes`; None if it is yet to be fitted.

        Raises:
            ConfigError: If the config names a model or a device that is not there.
        """
        check_model_type(config, registry)
        self.requested = config
        """The config as it was given."""
        self.registry = registry
        self.notes: list[str] = [*notes, *(parts.notes if parts else ())]
        """What the user should know of the config, the data and the training."""
        self.device = choose_device(config)
        self.pipeline: Pipeline | None = parts.pipeline if parts else None
        """The stages between the model and a list; None if the model ranks the whole catalogue."""
        self.result: TrainingResult | None = None
        """The history of the training; None for a classical or a loaded model."""
        self.metrics: dict[str, dict[str, float]] = dict(parts.metrics) if parts else {}
        """Ranking metrics by part of the split."""
        self._model: FittedModel | None = parts.model if parts else None

    @classmethod
    def from_config(
        cls, config: Config | dict[str, Any] | str | Path, plugins: Sequence[str | Path] = ()
    ) -> Recommender:
        """Return a recommender that is not fitted yet.

        Args:
            config: A config, a dict, or the path of a JSON file.
            plugins: Folders of plugins, besides those that the config names.

        Raises:
            ConfigError: With every bad key.
        """
        if isinstance(config, Config):
            return cls(config, discover([*config.plugins, *plugins]))
        loaded, notes = load_config(config, plugins=plugins, encoders_may_follow=True)
        return cls(loaded, discover([*loaded.plugins, *plugins]), notes)

    def add_encoder(self, name: str, module: nn.Module) -> Recommender:
        """Let a plain module encode the feature group `name`, whose features are numbers or lists of numbers.

        Args:
            name: The group.
            module: Maps (batch, width) float to (batch, any) float. Each feature of the group gets a copy. A model saved with it
                names its class by import path, and loads only with `trust_plugins=True`.

        Raises:
            ConfigError: If the module cannot be saved that way.
        """
        self.registry.add_class("encoder", encoder_of(name, module), f"add_encoder('{name}')")
        return self

    # What is known once the model is fitted

    @property
    def model(self) -> FittedModel:
        """The fitted model. Raises NotFittedError before `fit` or `load`."""
        if self._model is None:
            raise NotFittedError
        return self._model

    @property
    def config(self) -> Config:
        """The complete config once fitted: what was set, and what was chosen to fit the data; before that, as it was given."""
        return self.requested if self._model is None else self._model.config

    @property
    def is_fitted(self) -> bool:
        """Whether there is a model."""
        return self._model is not None

    @property
    def dataset(self) -> Dataset:
        """The users and items that the model knows, and the interactions if it has its data."""
        return self.model.dataset

    @property
    def split(self) -> Split | None:
        """The split of the training data; None for a model loaded without it."""
        return self.model.split

    @property
    def parts(self) -> ModelParts:
        """What a model directory holds."""
        return ModelParts(self.model, self.pipeline, self.metrics, self.notes)

    def describe(self) -> list[str]:
        """Return what the model is made of, in lines for a person."""
        return self.model.describe()

    # Fitting

    def fit(
        self,
        dataset: Dataset,
        *,
        run_dir: Path | None = None,
        resume: bool = False,
        progress: bool = True,
        report: Callable[[dict[str, Any]], None] | None = None,
        trained: Callable[[], Any] | None = None,
        started: Callable[[FittedModel], None] | None = None,
    ) -> Recommender:
        """Choose what the config leaves open, split, train on the training part, measure on validation and test.

        Args:
            dataset: Users, items and interactions.
            run_dir: Folder for checkpoints and metrics.jsonl.
            resume: Continue from the last checkpoint in `run_dir`.
            progress: Show progress bars.
            report: Called with each epoch's entry of metrics.jsonl.
            trained: Called when the model is complete, before it is measured, so that it can be saved first.
            started: Called with the untrained model before the first epoch.

        Returns:
            The recommender itself. A part of the split that cannot be measured has no metrics, and a note says why.

        Raises:
            ConfigError: For options that do not fit the data.
            DataError: If nothing is left to train on.
        """
        config, chosen = resolve_config(self.requested, checked_dataset(dataset), self.registry)
        check_with_data(config, self.registry, dataset)
        dataset = dataset.sorted()
        meaning = interpretation(dataset, config.data)
        learning, notes = LearningData.make(dataset, config)
        self.notes += [*chosen, *notes, *(f"{one.text} {one.advice}" for one in meaning if one.level != "note")]
        context = self._context(config, learning.dataset)
        self.metrics, self.pipeline, self.result, self._model = {}, None, None, None
        untrained = {"config": config, "registry": self.registry, "dataset": learning.dataset}
        check_pipeline(ModelData(**untrained, has_vectors=config.model.type == TWO_TOWER))
        options = FitOptions(run_dir, resume, progress, report, started)
        fitted = fit(config, learning, self.registry, context, options=options)
        self._take(fitted)
        self.result = fitted.result
        refit = config.training.refit and len(learning.split.validation) > 0
        if refit:
            self._measure_part("validation")
            best = None if fitted.result is None else fitted.result.best_epoch
            split = learning.final_split(config)
            again = fit(
                config, learning, self.registry, context, split=split, epochs=best, options=options.within("refit")
            )
            self._take(again)
            self._model = replace(again.model, before_refit=dict(self.metrics.get("validation", {})))
        self._model, self.pipeline, notes = _fit_stages(self.model, progress)
        self.notes += notes
        if trained is not None:
            trained()
        if not refit:
            self._measure_part("validation")
        self._measure_part("test")
        return self

    def fit_beside(self, config: Config) -> Recommender:
        """Return another recommender, of a model without a training loop, fitted on exactly what this one learned from."""
        fitted = fit_like(self.model, config)
        return Recommender(config, self.registry, parts=ModelParts(fitted.model, notes=fitted.notes))

    def with_data(self, dataset: Dataset) -> Recommender:
        """Return this recommender with the data it was trained on, split again as it was, so that it can be evaluated.

        Raises:
            DataError: If this is not the data that it was trained on.
        """
        model, notes = with_data(self.model, checked_dataset(dataset))
        return self._with(replace(self.parts, model=model, notes=[*self.notes, *notes]))

    def with_pipeline(self, pipeline: PipelineConfig | dict[str, Any] | None, *, progress: bool = True) -> Recommender:
        """Return this model behind other stages, which are fitted here; None for the model alone.

        Sources and a ranker learn from the data, so those need a model just fitted, or one with its data (`with_data`).

        Raises:
            ConfigError: With every bad option.
            ModelError: If a stage needs data that is not there.
        """
        given = pipeline.model_dump() if isinstance(pipeline, PipelineConfig) else pipeline
        config, _ = load_config({**self.config.model_dump(mode="json"), "pipeline": given}, registry=self.registry)
        model, stages, notes = _fit_stages(self.model.with_config(config), progress)
        return self._with(ModelParts(model, stages, self.metrics, [*self.notes, *notes]))

    def add_items(self, items: Users, *, strict: bool | None = None) -> Recommender:
        """Return a recommender that also ranks items which this one does not know, by their features, without retraining.

        Args:
            items: Records in any form in which `recommend` takes users. Known ids keep their own record.
            strict: As for `recommend`.

        Raises:
            DataError: For records that cannot be read, and ids of another type than the model's.
        """
        records = self.read_records("item", items, strict=strict)
        wider = self._with(replace(self.parts, model=self.model.with_items(records)))
        log(items, records.context.warnings)
        return wider

    # Lists

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
            interactions: Interactions of the users up to now, a table or dicts (user_id, item_id, timestamp, ...). They extend
                what the model knows of the users. A document's or a Dataset's own interactions are read in the same way.
            strict: Raise DataError for what the model cannot read, such as unknown features. By default `data.strict` of the
                config; if false, each is logged as a warning.

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
        model = self.model
        k = checked_k(k, len(model.dataset.items))
        allowed = self._allowed(candidates)
        exclude = model.seen_of(records) if exclude_seen else None
        with torch.inference_mode():
            represented, items = model.represent(records), model.representations("item")
            rows, places, scores, ranks = rank_rows(model.scorer, represented, items, k, exclude, allowed)
        log(users, records.context.warnings)
        return pa.table(
            {
                "user_id": records.ids.take(pa.array(rows)),
                "item_id": model.dataset.ids("item").take(pa.array(places)),
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
        k, context, now = checked_k(k, len(self.dataset.items)), checked_context(context), checked_now(now)
        records = self.read_records("user", users, interactions=interactions, strict=strict)
        return self.stages().answer(
            self.model,
            records,
            k,
            candidates=self._allowed(candidates),
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
        user: Any = None,
        k: int = 10,
        space: str = "auto",
        where: dict[str, Any] | None = None,
        personal: float = 0.3,
        exclude_seen: bool = False,
        candidates: Sequence[Any] | pa.Array | None = None,
        strict: bool | None = None,
    ) -> pa.Table:
        """Return the k items nearest to a text, an image or both: item_id, score, rank (from 1).

        Args:
            text: What the items should be like.
            image: A file, or a URL if the config allows it.
            user: An id or a record (a dict). The model's score of an item then makes up the fraction `personal` of its score;
                without a user the score is the cosine.
            k: Items to return.
            space: "auto", "joint", "text", "image", "visual" or "tower" (docs/search.md).
            where: A condition on items (docs/rules.md).
            personal: Fraction of the score, from 0 to 1.
            exclude_seen: Leave out what the user interacted with.
            candidates: Ids of the only items to return.
            strict: As for `recommend`.

        Raises:
            InputError: If the items have nothing to be searched by, for an empty text or an unreadable image.
        """
        return search_items(
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

    def similar(self, items: Sequence[Any] | pa.Array, k: int = 10) -> pa.Table:
        """Return the k items most similar to each of `items`: query_id, item_id, score, rank (from 1).

        By the cosine of item vectors; a classical model has a similarity of its own, or none.

        Args:
            items: Ids that the model knows.
            k: Items for each; at most as many as there are others.
        """
        return similar(self.model, items, checked_k(k, len(self.dataset.items)))

    # Scores and embeddings

    def score(self, pairs: Any) -> pa.Table:
        """Score pairs of known users and items.

        Args:
            pairs: A pandas, polars or Arrow table, or a list of dicts, of user_id and item_id.

        Returns:
            The pairs, with `score` and each head's prediction.

        Raises:
            DataError: For ids that the model does not know.
        """
        table = pairs_of(pairs)
        users = self.model.rows_of("user", table.column("user_id"))
        items = self.model.rows_of("item", table.column("item_id"))
        for name, values in self.score_rows(None, users, items).items():
            table = table.append_column(name, values)
        return table

    def score_rows(self, users: Users, user_rows: np.ndarray, item_rows: np.ndarray) -> dict[str, pa.Array]:
        """Return `score` and each head's prediction for pairs of rows.

        Args:
            users: As `recommend` takes them.
            user_rows: (pairs,) rows of `users`.
            item_rows: (pairs,) rows of the known items.
        """
        model = self.model
        with torch.inference_mode():
            left = model.represent(self.read_records("user", users))[torch.from_numpy(user_rows).to(model.device)]
            right = model.representations("item")[torch.from_numpy(item_rows).to(model.device)]
            return {name: as_column(values.cpu()) for name, values in model.predict(left, right).items()}

    def embed_users(self, users: Users = None, *, strict: bool | None = None) -> pa.Table:
        """Return user_id and `embedding` (fixed-size list of float32), for known ids or for records never seen.

        Args:
            users: As `recommend` takes them.
            strict: As for `recommend`.
        """
        return self._embed(self.read_records("user", users, strict=strict), users)

    def embed_items(self, items: Users = None, *, strict: bool | None = None) -> pa.Table:
        """Return item_id and `embedding` (fixed-size list of float32), for known ids or for records never seen.

        Args:
            items: In any form in which `recommend` takes users.
            strict: As for `recommend`.
        """
        return self._embed(self.read_records("item", items, strict=strict), items)

    def read_records(self, side: Side, source: Users, **options: Any) -> Records:
        """Read the users or items of a request once; arguments as for `anyrec.model.request_reader.RequestReader.read`."""
        return self.model.read_records(side, source, **options)

    # Evaluation

    def evaluate(self, split: Part = "test") -> dict[str, float]:
        """Return ranking metrics of one part of the split, of the lists that `recommend` would have returned before it.

        Each held-out item is ranked in the full catalogue without what its user had before (in training; at test time also in
        validation). A held-out item that the user had before cannot be listed: by `evaluation.repeats` it counts as a miss.

        Returns:
            Means over users by metric. For a model that was refitted on the validation part, the validation metrics are those
            measured before the refit: the refitted model has learned from that part.
        """
        checked_choice(split, ("validation", "test"), "split")
        if self.model.refitted and split == "validation":
            return dict(self.metrics.get("validation", {}))
        return ranking_metrics(rank_held_out(self.model, split), self.config.evaluation.k)

    def evaluate_pipeline(self, part: Part = "test") -> dict[str, float]:
        """Return ranking metrics of the lists that all stages make, by the rules of `evaluate`; an unlisted item is a miss."""
        return measure_pipeline(self.model, self.stages(), part)

    # Files

    def save(self, directory: str | Path) -> Path:
        """Write the model directory, whole or not at all; it contains no pickle."""
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
        """Read a model directory, or find the one that any file written by its training belongs to.

        Args:
            directory: The model's folder, its run's folder, or a file in either.
            trust_plugins: Allow the model to name what is outside its folder: folders of plugins, modules given to `add_encoder`,
                files and addresses of rules and indexes, paths of pretrained models, the folder of images (docs/security.md).
            plugins: Folders of plugins that the model may use, besides `./plugins`.
            image_root: Folder that relative names of images start from; by default that of the training data.

        Raises:
            ModelError: If the directory is damaged, or needs trust that was not given; with every fault.
        """
        with seeded(0):  # layers are made with random weights before the saved ones are read
            parts = load_model(checked_path(directory, "directory", ModelError), trust_plugins, plugins, image_root)
        return cls(parts.model.config, parts.model.registry, parts=parts)

    def with_image_root(self, folder: Path) -> Recommender:
        """Return this recommender with the folder that relative names of images in requests start from."""
        data = self.config.data.model_copy(update={"image_root": str(folder)})
        return self.with_config(self.config.model_copy(update={"data": data}))

    def with_config(self, config: Config) -> Recommender:
        """Return this recommender with a config that differs in what is not trained, such as `evaluation`.

        The pipeline stays; `with_pipeline` fits another one.
        """
        return self._with(replace(self.parts, model=self.model.with_config(config)))

    def saved_in(self, directory: Path, model_id: str) -> None:
        """Record where the model was saved, and its id."""
        self._model = self.model.saved_in(directory, model_id)

    # Helpers

    def _context(self, config: Config, dataset: Dataset) -> Context:
        return Context(
            root=Path(config.data.image_root) if config.data.image_root else dataset.root,
            allow_urls=config.data.allow_urls,
            allow_outside_root=config.data.allow_outside_root,
            strict=config.data.strict,
            seed=config.seed,
            device=str(self.device),
            items=dataset.items,
            trusted=self._model is None or self._model.context.trusted,
        )

    def _take(self, fitted: Fitted) -> None:
        self._model = fitted.model
        self.notes = list(dict.fromkeys([*self.notes, *fitted.notes]))

    def _with(self, parts: ModelParts) -> Recommender:
        """Return a recommender of other parts, which would be fitted again as this one."""
        other = Recommender(parts.model.config, self.registry, parts=parts)
        other.requested, other.result = self.requested, self.result
        return other

    def _measure_part(self, part: Part) -> None:
        """Measure a part of the split. If nothing can be measured it has no metrics; if measuring fails, a note says why."""
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

    def _embed(self, records: Records, source: Users) -> pa.Table:
        with torch.inference_mode():
            vectors = self.model.vectors(records.side, self.model.represent(records)).float().cpu()
        log(source, records.context.warnings)
        flat = pa.array(vectors.reshape(-1).numpy())
        embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        return pa.table({f"{records.side}_id": records.ids, "embedding": embedding})

    def _allowed(self, candidates: Sequence[Any] | pa.Array | None) -> np.ndarray | None:
        """Return (items,) bool, the items that may be listed; None for all. Raises DataError for unknown ids."""
        if candidates is None:
            return None
        allowed = np.zeros(len(self.dataset.items), bool)
        allowed[self.model.rows_of("item", candidates)] = True
        return allowed


def _fit_stages(model: FittedModel, progress: bool) -> tuple[FittedModel, Pipeline | None, list[str]]:
    """Return the model as its config's pipeline needs it, the fitted pipeline, and notes."""
    if model.config.pipeline is None:
        return model, None, []
    model = model.with_histories()
    return model, *fit_pipeline(model, progress=progress)


def as_column(values: Tensor) -> pa.Array:
    """Return (rows,) as numbers, (rows, width) as lists of them."""
    flat = pa.array(values.reshape(-1).float().numpy())
    if values.dim() == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(pa.float32()))


def pairs_of(pairs: Any) -> pa.Table:
    """Return a table or dicts with user_id and item_id as Arrow. Raises DataError for anything else."""
    if is_table(pairs):
        table = as_arrow(pairs)
    elif isinstance(pairs, list) and all(isinstance(one, dict) for one in pairs):
        table = read_partial({"interactions": pairs}, DataConfig(), {}).interactions
    else:
        what = f"expected a table or a list of dicts; found {show(pairs)}."
        raise DataError(Fault("pairs", what, "Give the columns user_id and item_id.", "shape"))
    missing = [name for name in ("user_id", "item_id") if name not in table.column_names]
    if missing:
        what = f"the column {' and '.join(missing)} is missing; found {', '.join(table.column_names) or 'none'}."
        raise DataError(Fault("pairs", what, "Give the columns user_id and item_id.", "shape"))
    return table
