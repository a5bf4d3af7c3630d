"""Config of training and evaluation."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from anyrec.core.config.keys import MAX_ROWS, Section
from anyrec.core.params import tunable

RANKING_METRICS = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")
METRIC = rf"^(auc|({'|'.join(RANKING_METRICS)})@[1-9][0-9]{{0,4}})$"


def _known_metric(name: str) -> str:
    if not re.fullmatch(METRIC, name):
        raise ValueError(
            f"no such metric; use auc, or {', '.join(RANKING_METRICS)} with a cut-off, for example ndcg@10"
        )
    return name


Metric = Annotated[str, AfterValidator(_known_metric), WithJsonSchema({"type": "string", "pattern": METRIC})]
"""Name of a metric, with its cut-off if it has one."""
CutOff = Annotated[int, Field(ge=1, le=10_000)]
"""Length of a list that is measured."""


class OptimizerConfig(Section):
    """The optimizer."""

    type: Literal["adam", "adamw", "sgd", "adagrad"] = Field(default="adamw", description="Algorithm.")
    learning_rate: float = Field(
        default=0.003,
        ge=1e-10,
        le=1000,
        description="Learning rate at the schedule's highest point.",
        json_schema_extra=tunable(1e-4, 0.1, log=True),
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight decay; decoupled from the gradient with adamw.",
        json_schema_extra=tunable(0.0, 1.0),
    )
    sparse: bool | Literal["auto"] = Field(
        default="auto",
        description="Sparse gradients and SparseAdam for id tables. auto: for tables of `sparse_rows` rows or more.",
    )
    sparse_rows: int = Field(
        default=200_000,
        ge=1,
        le=MAX_ROWS,
        description="Number of rows from which on `sparse: auto` applies to a table.",
    )
    max_norm: float | None = Field(
        default=None, ge=1e-6, le=1e6, description="Maximum norm of id vectors. Not with sparse gradients."
    )

    @model_validator(mode="after")
    def _sparse_is_legal(self) -> OptimizerConfig:
        if self.sparse is True and self.weight_decay > 0:
            raise ValueError(
                "sparse: true cannot go with weight_decay (a sparse step would decay only the rows it touches); set "
                "one of them to 0/false"
            )
        if self.sparse is True and self.max_norm is not None:
            raise ValueError("sparse: true cannot go with max_norm (renormalising writes dense rows); drop one of them")
        return self


class SchedulerConfig(Section):
    """The schedule of the learning rate."""

    type: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="Shape after the warm-up; cosine and linear fall to zero at the last step."
    )
    warmup: float = Field(
        default=0.0, ge=0, le=0.99, description="Fraction of all steps in which the learning rate rises linearly."
    )


class TrainingConfig(Section):
    """The training loop."""

    epochs: int = Field(default=20, ge=1, le=100_000, description="Maximum number of passes over the training part.")
    batch_size: int = Field(
        default=1024,
        ge=1,
        le=1 << 22,
        description="Positive interactions in each step.",
        json_schema_extra=tunable(128, 8192, log=True),
    )
    optimizer: OptimizerConfig = Field(default_factory=lambda: OptimizerConfig())
    scheduler: SchedulerConfig = Field(default_factory=lambda: SchedulerConfig())
    average_epochs: float = Field(
        default=0.0,
        ge=0,
        le=10_000,
        description="Validate and keep a running average of the weights over about this many epochs; 0 uses the latest "
        "weights.",
        json_schema_extra=tunable(0.0, 4.0),
    )
    gradient_clip: float | None = Field(
        default=None, ge=1e-9, le=1e9, description="Maximum norm of the gradient of all parameters."
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 if the processor multiplies it natively, else float32."
    )
    metric: Metric = Field(
        default="ndcg@10",
        description="Validation metric that selects the best epoch. Its cut-off must be one of `evaluation.k`.",
    )
    patience: int | None = Field(
        default=5,
        ge=1,
        le=100_000,
        description="Stop after this many validations in a row without a better metric; null never stops early.",
    )
    refit: bool = Field(
        default=False,
        description="After training, train again on the training and validation parts for the best number of epochs, "
        "before the test.",
    )
    evaluate_every: int = Field(
        default=1, ge=1, le=100_000, description="Epochs between validations; the last epoch is always validated."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|(cuda|mps|xpu)(:[0-9]{1,3})?)$",
        description="auto, cpu, cuda, cuda:1, mps or xpu. auto: a GPU if there is one.",
    )


class UpdateConfig(Section):
    """The steps of `anyrec update`."""

    epochs: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Maximum number of passes over the new interactions; training stops after the first pass without a "
        "better metric. 0 adds without steps.",
    )
    learning_rate: float = Field(
        default=0.1,
        ge=1e-6,
        le=100,
        description="Learning rate as a fraction of `training.optimizer.learning_rate`, so that few interactions do "
        "not overwrite what was learned of many.",
    )
    holdout_fraction: float = Field(
        default=0.2,
        ge=0.01,
        le=0.9,
        description="Fraction of each user's new interactions, the last ones, that decide whether the steps are kept.",
    )
    min_held_out: int = Field(
        default=20,
        ge=1,
        le=MAX_ROWS,
        description="Without this many held-out positives the steps are left out: fewer would decide by chance.",
    )


class DiagnosticsConfig(Section):
    """Sample sizes of the report's diagnostics. `seed` alone determines the samples."""

    embeddings: int = Field(
        default=20_000,
        ge=2,
        le=MAX_ROWS,
        description="Users, and items, whose embeddings are examined; of more, a sample.",
    )
    neighbours: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Nearest neighbours of an item whose category is compared with its own.",
    )
    pairs: int = Field(
        default=20_000,
        ge=1,
        le=10**8,
        description="Random pairs that show how often any two items share a category, and any item a trait of a user's "
        "history.",
    )
    scored_users: int = Field(
        default=500,
        ge=1,
        le=MAX_ROWS,
        description="Users whose scores are averaged for the correlations of item features with the scores; of more, a "
        "sample.",
    )
    values: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="Most frequent values of each categorical feature that are tested for a correlation.",
    )
    masked_users: int = Field(
        default=20_000,
        ge=1,
        le=MAX_ROWS,
        description="Users that the feature importance is measured on; of more, a sample.",
    )
    examples: int = Field(default=6, ge=0, le=100, description="Users whose recommendations are shown.")


class EvaluationConfig(Section):
    """The evaluation and its report."""

    k: list[CutOff] = Field(
        default_factory=lambda: [5, 10, 20],
        min_length=1,
        max_length=100,
        description="Cut-offs of the ranking metrics.",
    )
    batch_size: int = Field(default=1024, ge=1, le=1 << 20, description="Users scored at a time.")
    candidates: Literal["all", "interacted"] = Field(
        default="all",
        description="Items that are ranked. all: the catalogue. interacted: items that occur in an interaction.",
    )
    repeats: Literal["miss", "drop", "include_seen"] = Field(
        default="miss",
        description="Held-out items that their user had before. miss: lists leave out seen items, like served lists, "
        "so such an item is a miss. drop: only new items are measured. include_seen: lists contain seen items; serve "
        "with exclude_seen=False (--include-seen).",
    )
    baselines: Literal["auto"] | Annotated[list[str], Field(max_length=100)] = Field(
        default="auto",
        description="Classical models that are measured for comparison. auto: all that the data and the size of the "
        "catalogue allow.",
    )
    tune_baselines: bool = Field(
        default=True,
        description="Choose the options of these models on the validation part; false measures them with their "
        "defaults.",
    )
    report: bool = Field(default=True, description="Write report.md and report.html after training.")
    category: str | None = Field(
        default=None,
        description="Item feature (for example categorical.genre) used as the category in the report; chosen "
        "automatically by default.",
    )
    traits: list[str] | None = Field(
        default=None,
        max_length=20,
        description="Categorical item features that the report compares between users' histories and lists. By default "
        "the category, and features whose names say author, artist, brand or the like.",
    )
    diagnostics: DiagnosticsConfig = Field(default_factory=lambda: DiagnosticsConfig())
    candidate_samples: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="Rank against this many sampled items. Sampled metrics are not comparable with full-ranking "
        "metrics.",
    )
