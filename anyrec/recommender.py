"""The facade: fit, recommend, similar, score, embed, evaluate, save, load."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.answers import Answers
from anyrec.core.config import TWO_TOWER, Config, DataConfig
from anyrec.core.contracts import Context
from anyrec.core.discovery import Registry, discover
from anyrec.core.errors import (
    ConfigError,
    DataError,
    Fault,
    ModelError,
    NotFittedError,
    OutputError,
    checked_path,
    did_you_mean,
)
from anyrec.core.runtime import seeded, training_memory
from anyrec.data.dataset import Dataset, Side
from anyrec.data.defaults import resolve_config
from anyrec.data.fingerprint import data_fingerprint
from anyrec.data.formats.columns import show
from anyrec.data.formats.frames import as_arrow
from anyrec.data.histories import (
    history_column,
    history_features,
    with_history,
)
from anyrec.data.interpretation import interpretation
from anyrec.data.labels import Labels, label_interactions, training_weights
from anyrec.data.leaks import drop_leaks
from anyrec.data.partial import is_table, of_other_type, read_partial, type_name
from anyrec.data.split import Part, Split, make_split
from anyrec.evaluation.ranking import Pairs, ranking_metrics
from anyrec.model.arguments import checked_choice, checked_dataset, log
from anyrec.model.build import assemble, check_with_data
from anyrec.model.fitted import TOKENS, VECTORS, Users
from anyrec.model.records import Records, joined
from anyrec.model.scoring import ROWS_AT_A_TIME, vectors_for_histories
from anyrec.model.towers import SIDES, Columns, Model, move_columns
from anyrec.pipeline.item_search import Nearest

if TYPE_CHECKING:
    from anyrec.training.loop import TrainingResult


class Recommender(Answers, Nearest):
    """A config, the fitted model, and the users, items and interactions it knows."""

    def __init__(self, config: Config, registry: Registry, notes: Sequence[str] = ()):
        self.config = config
        """The complete config once fitted: what was set, and what was chosen to fit the data."""
        self.requested = config
        self.registry = registry
        self.notes: list[str] = list(notes)
        self.device = _device(config.training.device)
        self.model: Model
        self.dataset: Dataset
        self.split: Split | None = None
        self.columns: dict[Side, Columns] = {}
        self.seen: Pairs
        self.seen_parts = None
        self.context = Context()
        self.result: TrainingResult | None = None
        self.metrics: dict[str, dict[str, float]] = {}
        self.fingerprint: str | None = None
        """Hash of the data that a loaded model was trained on."""
        self.history, self.history_parts = None, None
        self.refitted = False
        self.model_id = ""
        """Of a loaded model, as `anyrec.storage.model_directory.model_id` gives it."""
        self.pipeline, self.catalogue, self.widened = None, None, False
        self._known, self._before, self._vocabulary = {}, {}, {}

    def __getattr__(self, name: str) -> Any:
        """Called for attributes that are not set. Raises NotFittedError for those that `fit` and `load` set."""
        if name in ("model", "dataset", "seen"):
            raise NotFittedError
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @classmethod
    def from_config(
        cls, config: Config | dict[str, Any] | str | Path, plugins: Sequence[str | Path] = ()
    ) -> Recommender:
        """A recommender yet to be fitted. Raises ConfigError with every bad key."""
        from anyrec.core.load_config import load_config

        if isinstance(config, Config):
            return make_recommender(config, discover([*config.plugins, *plugins]))
        loaded, notes = load_config(config, plugins=plugins, encoders_may_follow=True)
        return make_recommender(loaded, discover([*loaded.plugins, *plugins]), notes)

    def add_encoder(self, name: str, module: nn.Module) -> Recommender:
        """Let a plain module encode the feature group `name`, whose features are numbers or lists of numbers.

        module: (batch, width) float -> (batch, any) float. Each feature of the group gets a copy of it. A model saved
        with it names its class by import path, and loads only with `trust_plugins=True`.
        Raises ConfigError when the module cannot be saved that way.
        """
        from anyrec.model.custom_modules import encoder_of

        self.registry.add_class("encoder", encoder_of(name, module), f"add_encoder('{name}')")
        return self

    def fit(
        self,
        dataset: Dataset,
        *,
        run_dir: Path | None = None,
        resume: bool = False,
        progress: bool = True,
        report: Callable[[dict[str, Any]], None] | None = None,
        trained: Callable[[], Any] | None = None,
    ) -> Recommender:
        """Choose what the config leaves open, split, learn encoders and model on the training part, measure on validation and test.

        run_dir: where checkpoints and metrics.jsonl go; resume: go on from the last checkpoint there.
        report: called with each epoch's entry of metrics.jsonl. trained: called when the model is complete, before it is
        measured, so that it can be saved first. A part that cannot be measured is a note, and has no metrics.
        Raises ConfigError for options that do not fit the data, DataError when nothing is left to train on.
        """
        from anyrec.pipeline.fit import check_pipeline, fit_pipeline

        config, chosen = resolve_config(self.requested, checked_dataset(dataset), self.registry)
        check_with_data(config, self.registry, dataset)
        self.config = config
        self.notes += chosen
        dataset = dataset.sorted()
        labels = label_interactions(dataset, config.data)
        meaning = interpretation(dataset, config.data)
        self.split, notes = make_split(dataset, config, labels.positive)
        dataset, leaks = drop_leaks(dataset, self.split, config.data)
        self.notes += [*dataset.notes, *notes, *leaks]
        self.notes += [f"{one.text} {one.advice}" for one in meaning if one.level != "note"]
        if not labels.positive[self.split.train].any():
            raise DataError(Fault("/interactions", "no positive interaction is left to train on.", kind="no positives"))
        self.dataset = dataset
        self.context = Context(
            root=Path(config.data.image_root) if config.data.image_root else dataset.root,
            allow_urls=config.data.allow_urls,
            allow_outside_root=config.data.allow_outside_root,
            strict=config.data.strict,
            seed=config.seed,
            device=str(self.device),
            items=dataset.items,
            trusted=self.context.trusted,
        )
        self.history, self.history_parts, self.refitted = None, None, False
        self._remember(labels, events=False)
        check_pipeline(self)
        options = {"resume": resume, "progress": progress, "report": report}
        self._learn(dataset, self.split, labels, config, run_dir=run_dir, **options)
        self.metrics = {}
        refit = config.training.refit and len(self.split.validation) > 0
        if refit:
            self._keep_metrics("validation")
            self._refit(dataset, labels, None if run_dir is None else run_dir / "refit", options)
            self.refitted = True
        fit_pipeline(self, progress=progress)
        if trained is not None:
            trained()
        if not refit:
            self._keep_metrics("validation")
        self._keep_metrics("test")
        return self

    def _keep_metrics(self, part: Part) -> None:
        """Measure a part; one without a target that can be measured has no metrics, nor one whose measuring fails (a note)."""
        from anyrec.evaluation.repeats import repeat_notes

        assert self.split is not None
        if not len(self.split.rows(part)):
            return
        try:
            metrics = self.evaluate(part)
            if metrics:
                self.metrics[part] = metrics
            if part == "test" or not len(self.split.test):
                self.notes += repeat_notes(self, part)
        except Exception as error:
            self.notes.append(f"The {part} part could not be measured ({type(error).__name__}: {error}).")

    def _refit(self, dataset: Dataset, labels: Labels, run_dir: Path | None, options: dict[str, Any]) -> None:
        """Learn again, on what trained and what validated, for as many epochs as validation found best."""
        epochs = {"epochs": self.result.best_epoch} if self.result else {}
        training = self.config.training.model_copy(update={**epochs, "patience": None})
        first = self.result
        self._learn(
            dataset,
            self.learned_from(),
            labels,
            self.config.model_copy(update={"training": training}),
            run_dir=run_dir,
            **options,
        )
        self.result = first

    def fit_beside(self, config: Config) -> Recommender:
        """Another model, without the training loop, of exactly what this one learned from."""
        other = make_recommender(config, self.registry)
        other.dataset, other.split, other.context = self.dataset, self.split, self.context
        other.seen, other.seen_parts, other.refitted = self.seen, self.seen_parts, self.refitted
        labels = label_interactions(self.dataset, config.data)
        other._learn(self.dataset, self.learned_from(), labels, config)
        return other

    def _learn(self, dataset: Dataset, split: Split, labels: Labels, config: Config, **options: Any) -> None:
        """Fit the encoders on the split's training part, make the model and train it. options: as `train` takes them."""
        with seeded(config.seed, self.device), training_memory():
            self._fit_model(dataset, split, labels, config, **options)

    def _fit_model(self, dataset: Dataset, split: Split, labels: Labels, config: Config, **options: Any) -> None:
        from anyrec.evaluation.held_out import held_out
        from anyrec.training.loop import train
        from anyrec.training.samples import TrainingData, make_samples, make_stream

        kept = options.get("run_dir") is not None
        tables = data_fingerprint(dataset, split) if kept else None

        labels = training_weights(labels, dataset, split.train, config.data, self.notes)
        events, histories = None, history_features(config)
        if histories:
            if dataset.column("timestamp") is None:
                self.notes.append("No interaction has a timestamp: histories follow the order of the file.")
            events = self._events(split.train, labels)
            dataset = with_history(dataset, history_column(dataset, events), histories)
        self.model, self.columns = assemble(config, self.registry, dataset, split.train, self.context, self.notes)
        self.notes = list(dict.fromkeys([*self.notes, *self.context.warnings]))  # a refit says the same again
        self._known, self._before, self._vocabulary, self.catalogue = {}, {}, {}, None
        self.directory, self.model_id = None, ""  # what is kept there is of another model
        order = None if events is None else events.interactions
        samples = make_samples(dataset, split.train, labels, self.model.heads, order).to(self.device)
        stream = (
            None
            if events is None
            else make_stream(self.model, self.columns["user"], events, labels, config, self._ordered())
        )
        sizes = len(dataset.users), len(dataset.items)
        data = TrainingData(self.columns["user"], self.columns["item"], samples, *sizes, stream)
        if events is not None:
            self._remember(labels, events=True)
        validate = None
        if len(split.validation) and held_out(self, "validation").listable.any():
            validate = lambda: self.evaluate("validation")  # noqa: E731
        self.result = train(self.model, data, config, self.registry, validate=validate, tables=tables, **options)
        if events is not None:
            assert self.history is not None
            self.columns["user"] = {**self.columns["user"], **self._prepare_history(self.history)}
        self.model.eval()

    def score(self, pairs: Any) -> pa.Table:
        """Score pairs of known users and items.

        Args:
            pairs: A pandas, polars or Arrow table, or a list of dicts, of user_id and item_id.

        Returns:
            The pairs, with `score` and each head's prediction beside.

        Raises:
            DataError: For ids that the model does not know.
        """
        table = pairs_of(pairs)
        users = self._rows_of_ids("user", table.column("user_id"))
        items = self._rows_of_ids("item", table.column("item_id"))
        for name, values in self.score_rows(None, users, items).items():
            table = table.append_column(name, values)
        return table

    def score_rows(self, users: Users, user_rows: np.ndarray, item_rows: np.ndarray) -> dict[str, pa.Array]:
        """`score` and each head's prediction for pairs of rows: of `users` (default the known), of the known items."""
        with self._inference():
            _, represented, _ = self._represent("user", users)
            left = represented[torch.from_numpy(user_rows).to(self.device)]
            right = self._known_rows("item")[torch.from_numpy(item_rows).to(self.device)]
            found: dict[str, list[Tensor]] = {"score": []}
            for u, i in zip(left.split(ROWS_AT_A_TIME), right.split(ROWS_AT_A_TIME), strict=True):
                found["score"].append(self.model.score(u, i.unsqueeze(1)).squeeze(1))
                for name, head in self.model.heads.items():
                    found.setdefault(name, []).append(head(self.model.interaction.pair(u, i)))
        return {name: as_column(torch.cat(parts).cpu()) for name, parts in found.items()}

    def embed_users(self, users: Users = None, *, strict: bool | None = None) -> pa.Table:
        """user_id and `embedding` (fixed-size list of float32), for known ids or for records never seen.

        Args:
            users: As `recommend` takes them.
            strict: As for `recommend`.
        """
        return self._embed("user", users, strict)

    def embed_items(self, items: Users = None, *, strict: bool | None = None) -> pa.Table:
        """item_id and `embedding` (fixed-size list of float32), for known ids or for records never seen.

        Args:
            items: In any form in which `recommend` takes users.
            strict: As for `recommend`.
        """
        return self._embed("item", items, strict)

    def _embed(self, side: Side, source: Users, strict: bool | None = None) -> pa.Table:
        records = self.read_records(side, source, strict=strict)
        with self._inference():
            ids, represented, _ = self._represent(side, records)
            vectors = self._vectors(side, represented).cpu()
        log(source, records.context.warnings)
        flat = pa.array(vectors.reshape(-1).numpy())
        return pa.table({f"{side}_id": ids, "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})

    def evaluate(self, split: Part = "test") -> dict[str, float]:
        """Ranking metrics of one part of the split, of the lists that `recommend` would have returned before it.

        Each held-out item is ranked in the full catalogue without what its user had before (in training; at test time also in
        validation). A held-out item that the user had before cannot be listed: by `evaluation.repeats` it counts as a miss.

        Returns:
            Means over users by metric. For a model that was refitted on the validation part, the validation metrics are those
            measured before the refit: the refitted model has learned from that part.
        """
        from anyrec.evaluation.held_out import rank_held_out

        checked_choice(split, ("validation", "test"), "split")
        if self.refitted and split == "validation":
            return dict(self.metrics.get("validation", {}))
        return ranking_metrics(rank_held_out(self, split), self.config.evaluation.k)

    def with_data(self, dataset: Dataset) -> Recommender:
        """This model beside the data it was trained on, split again as it was, so that it can be evaluated."""
        from anyrec.evaluation.held_out import with_data

        return with_data(self, checked_dataset(dataset))

    def add_items(self, items: Any, *, strict: bool | None = None) -> Recommender:
        """A recommender that also ranks items which this one does not know, by their features, without retraining.

        Args:
            items: Records in any form in which `recommend` takes users. Known ids keep their own record.
            strict: As for `recommend`.

        Raises:
            DataError: For records that cannot be read, and ids of another type than the model's.
        """
        records = self.read_records("item", items, strict=strict)
        wider = self._widened(records)
        log(items, records.context.warnings)
        return wider

    def _widened(self, records: Records) -> Recommender:
        """This recommender with the new items among `records`."""
        wider, known = copy.copy(self), self.dataset
        unknown = records.rows < 0
        if not unknown.any():
            return wider
        if of_other_type(records.ids, known.ids("item")):
            kinds = type_name(known.ids("item")), show(records.ids[int(np.argmax(unknown))].as_py())
            what = f"the ids of this model's items are {kinds[0]}; found {kinds[1]}."
            raise DataError(Fault("/item_data/0/item_id", what, "Write all ids of one type.", "id type"))
        assert records.table is not None
        ids = records.ids.filter(pa.array(unknown)).cast(known.ids("item").type)
        table = records.table.filter(pa.array(unknown))
        table = table.set_column(table.column_names.index("item_id"), "item_id", ids)
        new = replace(records, ids=ids, rows=records.rows[unknown], table=table)
        with self._inference():
            _, represented, _ = self._represent("item", new)
            wider._known = {**self._known, "item": torch.cat([self._known_rows("item"), represented])}
            wider.widened = True
            if TOKENS["item"] in self._known:
                wider._known[TOKENS["item"]] = torch.cat([self._known_tokens("item"), self._tokens("item", new)])
            vectors = self._item_vectors()
            if vectors is not None:
                columns = move_columns(self.model.item.prepare(table, "item", new.context), self.device)
                more = vectors_for_histories(self.model, columns, represented)
                assert more is not None
                wider._known[VECTORS] = torch.cat([vectors, more])
        wider.dataset = Dataset(
            known.users, joined(known.items, table), known.interactions, known.root, known.roles, known.notes
        )
        return wider

    def save(self, directory: str | Path) -> Path:
        """Write the model directory, whole or not at all; no pickle in it."""
        from anyrec.storage.model_directory import save_model

        return save_model(self, checked_path(directory, "directory", OutputError))

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
            directory: the model's folder, its run's folder, or a file in either.
            trust_plugins: allow the model to name what is outside its folder: folders of plugins, modules given to `add_encoder`,
                files and addresses of rules and indexes, paths of pretrained models, the folder of pictures (docs/security.md).
            plugins: folders of plugins that the model may use, beside `./plugins`.
            image_root: folder that relative names of pictures start from; by default the one of the training data.

        Raises:
            ModelError: if the directory is damaged, or needs trust that was not given; with every fault.
        """
        from anyrec.storage.load_model import load_model

        with seeded(0):  # layers are made with random weights before the saved ones are read
            return load_model(checked_path(directory, "directory", ModelError), trust_plugins, plugins, image_root)

    def write_parts(self, folder: Path) -> None:
        """What this kind of model keeps in its directory, beside the records."""
        from anyrec.storage.model_directory import write_model

        write_model(self.model, folder)

    def read_parts(self, folder: Path) -> None:
        """Take up again what `write_parts` wrote."""
        from anyrec.storage.load_model import read_model

        self.model = read_model(folder, self.config, self.registry, self.context).to(self.device)

    @property
    def reads_history(self) -> bool:
        """Whether what a user does after training changes the user's scores without training again."""
        return self.model.has_history

    def check_restored(self, folder: Path) -> None:
        """Raises ModelError if the parts of a loaded model do not fit each other."""
        from anyrec.storage.load_model import check_vectors

        check_vectors(self, folder)

    has_vectors = True
    """Whether users and items have embeddings."""

    def about(self) -> dict[str, Any]:
        """The model in one line of a result: name, and the length of its vectors and how they make a score."""
        config = self.config
        return {"name": config.name, "dim": config.dim, "interaction": config.interaction.type}

    def describe(self) -> list[str]:
        """What the model is made of, in lines for a person."""
        lines = []
        for side in SIDES:
            tower = self.model.tower(side)
            features = ", ".join(f"{n} ({e.type})" for n, e in zip(tower.features, tower.encoders, strict=True))
            lines.append(f"{side} tower: {features} -> {tower.fusion.type} -> {tower.fusion.output_dim}")
        sizes = ", ".join(f"{name} {size:,}" for name, size in self.model.sizes().items() if size)
        return [*lines, f"parameters: {sizes}"]


def make_recommender(config: Config, registry: Registry, notes: Sequence[str] = ()) -> Recommender:
    """The kind of recommender that `model` in the config names."""
    if config.model.type == TWO_TOWER:
        if config.model.options():
            fault = Fault("/model", "two_tower takes no options here.", "Its options are keys of the config itself.")
            raise ConfigError(fault)
        return Recommender(config, registry, notes)
    from anyrec.model.classical import ClassicalRecommender

    known = [TWO_TOWER, *registry.names("classical")]
    if config.model.type not in known:
        suggestion = did_you_mean(config.model.type, known)
        raise ConfigError(
            Fault("/model/type", f"there is no model '{config.model.type}'.", suggestion, "unknown plugin")
        )
    return ClassicalRecommender(config, registry, notes)


def as_column(values: Tensor) -> pa.Array:
    """(rows,) as numbers, (rows, width) as lists of them."""
    flat = pa.array(values.reshape(-1).float().numpy())
    return (
        flat
        if values.dim() == 1
        else pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(pa.float32()))
    )


def pairs_of(pairs: Any) -> pa.Table:
    """A table or dicts with user_id and item_id, as Arrow. Raises DataError for anything else."""
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


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            Fault("/training/device", f"there is no device '{name}' here ({error}).", "Use 'auto' or 'cpu'.")
        ) from None
    return device
