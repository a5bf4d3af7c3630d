"""The config: every key with its bounds and its fixed default. Each key is optional; unknown keys are refused.

A component (`fusion`, `loss`, ...) is named by `type`; its other keys are that plugin's own `Params`. Values are strict: a text is
no number, `true` is no number, and a number is finite. Every number has both bounds, so that no value exhausts the memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from anyrec.core.outside import Outside
from anyrec.core.renamed import current_names, present_name

TWO_TOWER = "two_tower"
MAX_DIM = 16_384
MAX_ROWS = 10**12
RANKING_METRICS = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")
METRIC = rf"^(auc|({'|'.join(RANKING_METRICS)})@[1-9][0-9]{{0,4}})$"


def _known_metric(name: str) -> str:
    if not re.fullmatch(METRIC, name):
        raise ValueError(f"no such metric; use auc, or {', '.join(RANKING_METRICS)} with a cut-off, as ndcg@10")
    return name


Metric = Annotated[str, AfterValidator(_known_metric), WithJsonSchema({"type": "string", "pattern": METRIC})]
CutOff = Annotated[int, Field(ge=1, le=10_000)]


class Keys(BaseModel):
    """Base class of config objects, of which some keys were renamed. The former names still work."""

    renamed: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Any) -> Any:
        return current_names(values, cls.renamed) if cls.renamed and isinstance(values, dict) else values


class Section(Keys):
    """A part of the config with fixed keys."""

    model_config = ConfigDict(extra="forbid", validate_default=True, strict=True, allow_inf_nan=False)


class Component(Keys):
    """A plugin by name, with its own options as further keys."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    type: str = Field(description="The plugin's name; `anyrec plugins` lists them.")

    def options(self) -> dict[str, Any]:
        """The plugin's own options."""
        return dict(self.model_extra or {})

    def named(self) -> bool:
        """Whether `type` was set, and is not the key's default."""
        return "type" in self.model_fields_set


class ModelChoice(Component):
    type: str = TWO_TOWER


class FusionChoice(Component):
    type: str = "simple"


class InteractionChoice(Component):
    type: str = "dot"


class LossChoice(Component):
    type: str = "softmax"


class NegativesChoice(Component):
    type: str = "in_batch"


class IndexChoice(Component):
    type: str = "exact"


class Feature(Component):
    """How the features of one group are encoded. Other keys are the encoder's own options."""

    renamed = {"together": "pool_group"}
    type: str | None = Field(default=None, description="The encoder; by default the group's first choice.")  # type: ignore[assignment]
    fields: dict[str, Feature | None] = Field(
        default_factory=dict, description="Other choices for single features by name; null leaves that feature out."
    )
    pool_group: bool = Field(
        default=False, description="Average the group's features into one vector before the fusion."
    )

    @field_validator("type")
    @classmethod
    def _present_name(cls, name: str | None) -> str | None:
        """Accept an encoder's name of an earlier version."""
        return name and present_name("encoder", name)


class DataConfig(Section):
    strict: bool = Field(default=False, description="Treat missing and corrupt image files as errors.")
    image_root: Annotated[str | None, Outside("a folder", "leave out")] = Field(
        default=None, description="Folder that relative file names start from; by default the data file's own."
    )
    allow_urls: Annotated[bool, Outside("addresses of images", "leave out")] = Field(
        default=False, description="Allow images to be fetched from URLs."
    )
    allow_outside_root: Annotated[bool, Outside("files outside the image root", "leave out")] = Field(
        default=False,
        description="Allow records to name files outside `image_root`, by absolute paths, '..' or links; such a file counts "
        "as missing otherwise.",
    )
    unknown_ids: Literal["error", "drop", "keep"] = Field(
        default="error",
        description="Interactions whose user or item has no record: refuse, drop them, or keep with the id alone.",
    )
    roles: dict[str, Literal["numbers", "timestamps", "items"]] = Field(
        default_factory=dict,
        description="What a temporal feature holds, as {'user.name': role}; inferred where absent.",
    )
    history: str | None = Field(
        default=None,
        description="Temporal user feature (as prev_interactions) that lists the items a user had before all interactions given, "
        "oldest first; a record at inference brings its own history by it.",
    )
    positive_types: dict[str, Annotated[float, Field(ge=0, le=1e6)]] | None = Field(
        default=None,
        min_length=1,
        description="Interaction types that count as positive, each with its weight (0 or more; 0 does not count); "
        "by default all, with weight 1.",
    )
    min_rating: float | None = Field(
        default=None,
        ge=-1e9,
        le=1e9,
        description="Ratings below this make an explicit negative; by default every rating is positive.",
    )
    half_life_days: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="A training positive this many days older than the newest weighs half. A few timestamps far after all "
        "others do not count as the newest.",
    )
    half_life_interactions: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e9,
        description="A training positive that its user followed with this many more weighs half.",
    )
    drop_leaks: bool = Field(
        default=True, description="Drop item-id list features that give held-out interactions away."
    )
    leak_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of held-out pairs given away by a feature that makes it a leak."
    )
    max_users: int | None = Field(default=None, ge=1, le=MAX_ROWS, description="Keep only the first so many users.")
    max_items: int | None = Field(default=None, ge=1, le=MAX_ROWS, description="Keep only the first so many items.")
    max_interactions: int | None = Field(
        default=None, ge=1, le=MAX_ROWS, description="Keep only the first so many interactions."
    )
    min_user_interactions: int = Field(
        default=0, ge=0, le=MAX_ROWS, description="Drop users with fewer interactions, repeated until stable."
    )
    min_item_interactions: int = Field(
        default=0, ge=0, le=MAX_ROWS, description="Drop items with fewer interactions, repeated until stable."
    )


class SplitConfig(Section):
    protocol: Literal[
        "auto", "leave_last_out", "leave_last_n", "global_time", "random", "cold_users", "cold_items", "none"
    ] = Field(
        default="auto",
        description="auto: global_time where timestamps are clock times, leave_last_out where they only order each user's "
        "own interactions, else random.",
    )
    validation: float = Field(
        default=0.1, ge=0, lt=1, description="Share of interactions (users, items) for validation; not for leave_last."
    )
    test: float = Field(
        default=0.1, ge=0, lt=1, description="Share of interactions (users, items) for test; not for leave_last."
    )
    file: Annotated[str | None, Outside("a file", "check")] = Field(
        default=None, description="A split.parquet of another run, to be followed instead of all the above."
    )
    last_n: int = Field(
        default=1, ge=1, le=100_000, description="Interactions of each user in either part, for leave_last_n."
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> SplitConfig:
        if self.validation + self.test > 1 - 1e-9:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing to train on; make their sum less than 1"
            )
        return self


class TowerConfig(Section):
    """What one side does otherwise than the whole."""

    features: dict[str, Feature | None] = Field(
        default_factory=dict, description="By group; replaces the shared choice for this side."
    )
    fusion: FusionChoice | None = Field(
        default=None,
        description="This side's fusion; by default the shared one. Without `type` it is the shared one with these options.",
    )
    feature_dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.99,
        description="Share of training examples from which each feature is hidden, but for the id and the history: "
        "features that all but name a record are learned by heart.",
    )


class OptimizerConfig(Section):
    type: Literal["adam", "adamw", "sgd", "adagrad"] = "adamw"
    learning_rate: float = Field(default=0.003, ge=1e-10, le=1000)
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    sparse: bool | Literal["auto"] = Field(
        default="auto", description="SparseAdam for id tables: auto uses it for tables past `sparse_rows`."
    )
    sparse_rows: int = Field(
        default=200_000, ge=1, le=MAX_ROWS, description="Rows of a table past which `sparse: auto` takes effect."
    )
    max_norm: float | None = Field(
        default=None, ge=1e-6, le=1e6, description="Bound on the norm of id vectors; not together with sparse."
    )

    @model_validator(mode="after")
    def _sparse_is_legal(self) -> OptimizerConfig:
        if self.sparse is True and self.weight_decay > 0:
            raise ValueError(
                "sparse: true cannot go with weight_decay (a sparse step would decay only the rows it touches); set one of them to 0/false"
            )
        if self.sparse is True and self.max_norm is not None:
            raise ValueError("sparse: true cannot go with max_norm (renormalising writes dense rows); drop one of them")
        return self


class SchedulerConfig(Section):
    type: Literal["constant", "cosine", "linear"] = "constant"
    warmup: float = Field(
        default=0.0, ge=0, le=0.99, description="Share of all steps over which the learning rate rises linearly."
    )


class TrainingConfig(Section):
    epochs: int = Field(default=20, ge=1, le=100_000)
    batch_size: int = Field(default=1024, ge=1, le=1 << 22, description="Positive interactions a step.")
    optimizer: OptimizerConfig = Field(default_factory=lambda: OptimizerConfig())
    scheduler: SchedulerConfig = Field(default_factory=lambda: SchedulerConfig())
    average_epochs: float = Field(
        default=0.0,
        ge=0,
        le=10_000,
        description="Validate and keep a running average of the weights, over about so many epochs; 0 keeps the last weights.",
    )
    gradient_clip: float | None = Field(
        default=None, ge=1e-9, le=1e9, description="Bound on the norm of all gradients together."
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the processor has it and it pays."
    )
    metric: Metric = Field(
        default="ndcg@10",
        description="Validation metric that picks the best epoch; its k must be one of `evaluation.k`.",
    )
    patience: int | None = Field(
        default=5,
        ge=1,
        le=100_000,
        description="Stop after this many validations in a row without a better metric; null never stops.",
    )
    refit: bool = Field(
        default=False,
        description="Train once more on train and validation together, for the best number of epochs, before the test.",
    )
    evaluate_every: int = Field(
        default=1, ge=1, le=100_000, description="Epochs between validations; the last epoch is always validated."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|(cuda|mps|xpu)(:[0-9]{1,3})?)$",
        description="auto, cpu, cuda, cuda:1, ...",
    )


class EvaluationConfig(Section):
    k: list[CutOff] = Field(
        default_factory=lambda: [5, 10, 20],
        min_length=1,
        max_length=100,
        description="Cut-offs of the ranking metrics.",
    )
    batch_size: int = Field(default=1024, ge=1, le=1 << 20, description="Users scored at a time.")
    candidates: Literal["all", "interacted"] = Field(
        default="all", description="Items ranked: the whole catalogue, or those that occur in an interaction."
    )
    repeats: Literal["miss", "drop", "include_seen"] = Field(
        default="miss",
        description="Held-out items that their user had before. miss: lists leave out seen items, as served ones do, so such an "
        "item is a miss (the default: figures are those of what is served). drop: measure only new items. include_seen: lists "
        "contain seen items; serve with exclude_seen=False (--include-seen).",
    )
    baselines: Literal["auto"] | Annotated[list[str], Field(max_length=100)] = Field(
        default="auto", description="Classical models to measure beside; auto: all that fit the data and the catalogue."
    )
    report: bool = Field(default=True, description="Write report.md and report.html when training ends.")
    category: str | None = Field(
        default=None,
        description="Item feature (as categorical.genre) that tells kinds of items apart; found where absent.",
    )
    candidate_samples: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="Rank against so many random items only. Such figures compare with no others.",
    )


class RetrieveConfig(Section):
    k: int = Field(default=1000, ge=1, le=1_000_000, description="Candidates of each user, of all sources together.")
    sources: list[Component] = Field(
        default_factory=lambda: [Component(type="model")],
        min_length=1,
        max_length=100,
        description="Where candidates come from, the most trusted first.",
    )


class RankTrainingConfig(Section):
    """How the ranker is trained, on positives that the model was not trained on."""

    renamed = {"kept": "validation_fraction", "held_out": "holdout_fraction"}
    epochs: int = Field(default=10, ge=1, le=100_000)
    batch_size: int = Field(default=32, ge=1, le=65_536, description="Lists a step.")
    learning_rate: float = Field(default=0.001, ge=1e-10, le=1000)
    weight_decay: float = Field(default=0.01, ge=0, le=1000)
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
        description="Fraction of users that decide when to stop and whether the ranker is better than the model's order.",
    )
    users: int = Field(default=10_000, ge=2, le=10**9, description="Train on the lists of at most this many users.")
    candidates: int = Field(default=200, ge=2, le=100_000, description="Train on the first candidates of each list.")
    holdout_fraction: float = Field(
        default=0.2,
        ge=0.001,
        le=0.99,
        description="Fraction of users whose last positive is withheld from the model to train the ranker, if the model would "
        "otherwise be trained on all positives (no validation part, or `training.refit`).",
    )


class RankConfig(Component):
    """An interaction by name, trained on what the first stage returns."""

    k: int = Field(default=100, ge=1, le=1_000_000, description="Candidates of each user that are passed on.")
    training: RankTrainingConfig = Field(default_factory=lambda: RankTrainingConfig())


class RerankConfig(Section):
    k: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Items that rules choose from; by default all that are passed on."
    )
    rules: list[Component] = Field(default_factory=list, max_length=1000, description="Applied one after another.")


class PipelineConfig(Section):
    retrieve: RetrieveConfig = Field(default_factory=lambda: RetrieveConfig())
    rank: RankConfig | None = Field(default=None, description="The ranker; null keeps the order of the first stage.")
    rerank: RerankConfig = Field(default_factory=lambda: RerankConfig())
    strict: bool = Field(
        default=False,
        description="A source, ranker or reordering that fails refuses the request; otherwise it is skipped with a "
        "warning. A filter that fails always refuses it.",
    )


class Config(Section):
    name: str = Field(default="model", pattern=r"^[\w.-]+$", description="Name of the run and its folder.")
    output_dir: str = Field(default="models", description="Folder that run folders are made in.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    plugins: Annotated[list[str], Outside("a folder of plugins", "leave out")] = Field(
        default_factory=list, max_length=100, description="Folders of drop-in plugins, beside ./plugins."
    )
    defaults: Literal["fitted", "fixed"] = Field(
        default="fitted",
        description="fitted: every key of the model and its training that is not set is chosen to fit the data (docs/defaults.md), "
        "and the complete config is saved with the model. fixed: the defaults listed here.",
    )
    data: DataConfig = Field(default_factory=lambda: DataConfig())
    split: SplitConfig = Field(default_factory=lambda: SplitConfig())
    model: ModelChoice = Field(
        default_factory=lambda: ModelChoice(),
        description="`two_tower`, which the keys below describe, or a classical model by name.",
    )
    dim: int = Field(default=64, ge=1, le=MAX_DIM, description="Dimension of the user and item vectors.")
    encoder_dim: int | None = Field(
        default=None, ge=1, le=MAX_DIM, description="Dimension of each feature's vector; by default `dim`."
    )
    features: dict[str, Feature | None] = Field(
        default_factory=dict, description="Encoder of each feature group; null leaves the group out."
    )
    id_dropout: float = Field(
        default=0.1,
        ge=0,
        le=0.99,
        description="Share of training examples whose own id is hidden, so that content speaks for ids never seen.",
    )
    history_dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.99,
        description="Fraction of training examples whose user's history is hidden, so that the user's other features learn to "
        "recommend to people without a history. No effect if users have no other features.",
    )
    fusion: FusionChoice = Field(default_factory=lambda: FusionChoice())
    user: TowerConfig = Field(default_factory=lambda: TowerConfig())
    item: TowerConfig = Field(default_factory=lambda: TowerConfig())
    interaction: InteractionChoice = Field(default_factory=lambda: InteractionChoice())
    heads: dict[str, Component] = Field(default_factory=dict, description="Further things to predict, by name.")
    loss: LossChoice = Field(default_factory=lambda: LossChoice())
    negatives: NegativesChoice = Field(default_factory=lambda: NegativesChoice())
    negative_ratio: int = Field(default=4, ge=1, le=100_000, description="Negatives drawn for each positive.")
    explicit_negatives: bool = Field(default=True, description="Also use the interactions labelled 0 as negatives.")
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    evaluation: EvaluationConfig = Field(default_factory=lambda: EvaluationConfig())
    index: IndexChoice = Field(default_factory=lambda: IndexChoice(), description="What finds the nearest items.")
    pipeline: PipelineConfig | None = Field(
        default=None,
        description="Stages and rules between the model and a list; null ranks the whole catalogue by the model.",
    )

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if set(name) <= {"."} or len(name.encode()) > 200 or not name.isprintable():
            raise ValueError(
                "expected the name of a folder: letters, digits, _, - and ., at most 200 bytes, not only dots"
            )
        return name

    def tower(self, side: Literal["user", "item"]) -> tuple[dict[str, Feature | None], Component]:
        """The features and fusion of one side, its own choices laid over the shared ones."""
        own: TowerConfig = getattr(self, side)
        fusion = own.fusion or self.fusion
        if not fusion.named() and fusion is not self.fusion:
            fusion = FusionChoice(**{"type": self.fusion.type, **self.fusion.options(), **fusion.options()})
        return {**self.features, **own.features}, fusion
