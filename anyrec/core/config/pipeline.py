"""Config of the pipeline: retrieve, rank, rerank."""

from __future__ import annotations

from pydantic import Field

from anyrec.core.config.keys import Component, Section


class RetrieveConfig(Section):
    """The first stage: candidates from one or more sources."""

    k: int = Field(default=1000, ge=1, le=1_000_000, description="Candidates for each user, from all sources combined.")
    sources: list[Component] = Field(
        default_factory=lambda: [Component(type="model")],
        min_length=1,
        max_length=100,
        description="Sources of candidates, the most trusted first.",
    )


class RankTrainingConfig(Section):
    """How the ranker is trained, on positives that the model was not trained on."""

    renamed = {"kept": "validation_fraction", "held_out": "holdout_fraction"}
    epochs: int = Field(default=10, ge=1, le=100_000, description="Maximum number of passes over the lists.")
    batch_size: int = Field(default=32, ge=1, le=65_536, description="Lists in each step.")
    learning_rate: float = Field(default=0.001, ge=1e-10, le=1000, description="Learning rate.")
    weight_decay: float = Field(default=0.01, ge=0, le=1000, description="Decoupled weight decay.")
    patience: int = Field(
        default=2,
        ge=1,
        le=100_000,
        description="Stop after this many epochs in a row without a lower loss on the validation users.",
    )
    validation_fraction: float = Field(
        default=0.2,
        ge=0.001,
        le=0.99,
        description="Fraction of users that decide when to stop and whether the ranker is better than the model's "
        "order.",
    )
    users: int = Field(default=10_000, ge=2, le=10**9, description="Train on the lists of at most this many users.")
    candidates: int = Field(
        default=200, ge=2, le=100_000, description="Train on at most this many candidates of each list, from the top."
    )
    holdout_fraction: float = Field(
        default=0.2,
        ge=0.001,
        le=0.99,
        description="Fraction of users whose last positive is withheld from the model to train the ranker, if the "
        "model would otherwise be trained on all positives (no validation part, or `training.refit`).",
    )


class RankConfig(Component):
    """The second stage: an interaction by name, trained on what the first stage returns."""

    type: str = "mlp"
    k: int = Field(default=100, ge=1, le=1_000_000, description="Candidates of each user that are passed on.")
    training: RankTrainingConfig = Field(default_factory=lambda: RankTrainingConfig())


class RerankConfig(Section):
    """The last stage: rules."""

    k: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Number of top candidates that the rules choose from; by default all.",
    )
    rules: list[Component] = Field(
        default_factory=list, max_length=1000, description="Rules, applied one after another."
    )


class PipelineConfig(Section):
    """Stages and rules between the model and a list."""

    retrieve: RetrieveConfig = Field(default_factory=lambda: RetrieveConfig())
    rank: RankConfig | None = Field(default=None, description="Ranker; null keeps the order of the first stage.")
    rerank: RerankConfig = Field(default_factory=lambda: RerankConfig())
    strict: bool = Field(
        default=False,
        description="Refuse a request if a source, the ranker or a reordering rule fails. Otherwise the stage is "
        "skipped with a warning. A filter that fails always refuses the request.",
    )
