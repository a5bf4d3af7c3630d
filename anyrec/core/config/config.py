"""The whole config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from anyrec.core.config.blend import BlendConfig
from anyrec.core.config.card import CardConfig
from anyrec.core.config.cluster import ClusterConfig
from anyrec.core.config.data import DataConfig, SplitConfig
from anyrec.core.config.feast import FeastConfig
from anyrec.core.config.keys import (
    MAX_DIM,
    Component,
    Feature,
    FusionChoice,
    IndexChoice,
    InteractionChoice,
    LossChoice,
    ModelChoice,
    NegativesChoice,
    Section,
    TowerConfig,
)
from anyrec.core.config.pipeline import PipelineConfig
from anyrec.core.config.serving import ServingConfig
from anyrec.core.config.training import EvaluationConfig, TrainingConfig, UpdateConfig
from anyrec.core.config.tune import TuneConfig
from anyrec.core.outside import Outside
from anyrec.core.params import tunable
from anyrec.core.types import Json


class Config(Section):
    """Everything that determines a training run, except the data.

    Example:
        config = Config(dim=32, features={"text": Feature(type="sentence")})
        recommender = Recommender.from_config(config).fit(dataset)
    """

    name: str = Field(default="model", pattern=r"^[\w.-]+$", description="Name of the run and of its folder.")
    output_dir: str = Field(default="models", description="Folder in which run folders are created.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of all randomness.")
    plugins: Annotated[list[str], Outside("a folder of plugins", "leave out")] = Field(
        default_factory=list, max_length=100, description="Folders of drop-in plugins, in addition to ./plugins."
    )
    defaults: Literal["fitted", "fixed"] = Field(
        default="fitted",
        description="fitted: each key of the model and its training that is not set is chosen to fit the data "
        "(docs/defaults.md), and the complete config is saved with the model. fixed: such keys have the defaults "
        "listed here.",
    )
    data: DataConfig = Field(default_factory=lambda: DataConfig())
    split: SplitConfig = Field(default_factory=lambda: SplitConfig())
    model: ModelChoice = Field(
        default_factory=lambda: ModelChoice(),
        description="`two_tower`, which the keys below describe, or the name of a classical model.",
    )
    dim: int = Field(
        default=64,
        ge=1,
        le=MAX_DIM,
        description="Dimension of the user and item vectors.",
        json_schema_extra=tunable(16, 512, step=16),
    )
    encoder_dim: int | None = Field(
        default=None, ge=1, le=MAX_DIM, description="Dimension of each feature's vector; by default `dim`."
    )
    dim_ratio: dict[str, Annotated[float, Field(ge=1e-6, le=1e6)]] | None = Field(
        default=None,
        description='Shares that dimension between groups of features, as {"text": 7, "categorical": 2}: the vectors '
        "of a group are zero outside of its part. Groups that are not named have all of it; null shares nothing.",
    )
    features: dict[str, Feature | None] = Field(
        default_factory=dict, description="Encoder of each feature group; null leaves the group out."
    )
    id_dropout: float = Field(
        default=0.1,
        ge=0,
        le=0.99,
        description="Fraction of training examples in which the record's own id is masked, so that the other features "
        "learn to represent unseen ids.",
        json_schema_extra=tunable(0.0, 0.5),
    )
    history_dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.99,
        description="Fraction of training examples in which the user's history is masked, so that the user's other "
        "features learn to recommend to users without a history. No effect if users have no other features.",
        json_schema_extra=tunable(0.0, 0.5),
    )
    fusion: FusionChoice = Field(
        default_factory=lambda: FusionChoice(), description="How feature vectors become the vector of a user or item."
    )
    user: TowerConfig = Field(default_factory=lambda: TowerConfig(), description="Choices for the user tower only.")
    item: TowerConfig = Field(default_factory=lambda: TowerConfig(), description="Choices for the item tower only.")
    interaction: InteractionChoice = Field(
        default_factory=lambda: InteractionChoice(), description="Score of a user vector and an item vector."
    )
    heads: dict[str, Component] = Field(
        default_factory=dict,
        description="Further predictions for user-item pairs, by name. A head without `type` has the type of its name.",
    )
    loss: LossChoice = Field(default_factory=lambda: LossChoice(), description="Training loss.")
    negatives: NegativesChoice = Field(
        default_factory=lambda: NegativesChoice(), description="Sampler of the negatives that the loss compares with."
    )
    negative_ratio: int = Field(
        default=4,
        ge=1,
        le=100_000,
        description="Negatives for each positive.",
        json_schema_extra=tunable(1, 64, log=True),
    )
    explicit_negatives: bool = Field(
        default=True,
        description="Use explicit negatives (label 0, or a rating below `data.min_rating`) in training. A sampled loss "
        "compares each positive with one of its user's as well; a full softmax has them among all items. false: they "
        "count like interactions that are neither positive nor negative.",
    )
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    blend: BlendConfig | None = Field(
        default=None,
        description="Blend the towers with classical models, or replace them, if that is better on the validation "
        "part; null uses the towers alone.",
    )
    evaluation: EvaluationConfig = Field(default_factory=lambda: EvaluationConfig())
    index: IndexChoice = Field(default_factory=lambda: IndexChoice(), description="Index that finds the nearest items.")
    pipeline: PipelineConfig | None = Field(
        default=None,
        description="Stages and rules between the model and a list; null ranks the whole catalogue by the model's "
        "score.",
    )
    update: UpdateConfig = Field(
        default_factory=lambda: UpdateConfig(), description="Updates of a trained model with new data."
    )
    tune: TuneConfig = Field(
        default_factory=lambda: TuneConfig(), description="The search of `anyrec tune`; training does not read it."
    )
    tracking: dict[str, Component] = Field(
        default_factory=dict,
        description="Programs that record trainings, by name, in addition to metrics.jsonl. A tracker without `type` "
        "has the type of its name.",
    )
    serving: ServingConfig = Field(default_factory=lambda: ServingConfig(), description="The HTTP server.")
    feast: FeastConfig = Field(
        default_factory=lambda: FeastConfig(), description="Online features of users, from a feature server of Feast."
    )
    card: CardConfig = Field(
        default_factory=lambda: CardConfig(), description="What the model card says: licences, data, intended use."
    )
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(), description="Processes and machines that a command runs on."
    )

    @field_validator("heads", "tracking", mode="before")
    @classmethod
    def _typed_by_name(cls, named: Json) -> Json:
        if not isinstance(named, dict):
            return named
        untyped = {name: one for name, one in named.items() if isinstance(one, dict) and "type" not in one}
        return {**named, **{name: {"type": name, **one} for name, one in untyped.items()}}

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if set(name) <= {"."} or len(name.encode()) > 200 or not name.isprintable():
            raise ValueError(
                "expected the name of a folder: letters, digits, _, - and ., at most 200 bytes, not only dots"
            )
        return name

    def tower(self, side: Literal["user", "item"]) -> tuple[dict[str, Feature | None], Component]:
        """Return the encoders by feature group, and the fusion, of one side. Its own choices override the shared."""
        own = self.user if side == "user" else self.item
        fusion = own.fusion or self.fusion
        if not fusion.named() and fusion is not self.fusion:
            fusion = FusionChoice(**{"type": self.fusion.type, **self.fusion.options(), **fusion.options()})
        return {**self.features, **own.features}, fusion
