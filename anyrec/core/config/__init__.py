"""The config: every key with its bounds and its default.

Each key is optional, and unknown keys are refused. A component (`fusion`, `loss`, ...) is named by `type`; its other
keys are the component's own `Params`. Values are strict: `"3"` is not a number, `true` is not 1, and numbers are
finite. Every number has both bounds, so that no value can exhaust the memory.

- `keys`: base classes, the choice of a component, the choice of a feature's encoder, and the towers.
- `data`: reading and splitting the data.
- `sources`: the tables that the data is read from, and what their columns mean.
- `training`: training, its optimizer, and evaluation.
- `pipeline`: retrieval, ranking and reranking.
- `components`: every component that a config names, for checks that traverse it.
- `serving`: the HTTP server.
- `blend`: the blend of the towers with classical models.
- `card`: the model card.
- `feast`: online features of users.
- `tune`: the study of `anyrec tune`.
- `cluster`: the processes that share a training or a batch of lists.
- `config`: the whole config.
"""

from anyrec.core.config.blend import BlendConfig
from anyrec.core.config.card import CardConfig
from anyrec.core.config.cluster import ClusterConfig
from anyrec.core.config.config import Config
from anyrec.core.config.data import DataConfig, SplitConfig
from anyrec.core.config.feast import FeastConfig
from anyrec.core.config.keys import (
    MAX_DIM,
    MAX_ROWS,
    TWO_TOWER,
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
from anyrec.core.config.pipeline import (
    PipelineConfig,
    RankConfig,
    RankTrainingConfig,
    RerankConfig,
    RetrieveConfig,
)
from anyrec.core.config.serving import EventsConfig, ExperimentConfig, ServingConfig, VariantConfig
from anyrec.core.config.sources import (
    ColumnConfig,
    FormatConfig,
    SideTable,
    SourcesConfig,
    SourceTable,
    TableConfig,
)
from anyrec.core.config.training import (
    DiagnosticsConfig,
    EvaluationConfig,
    OptimizerConfig,
    SchedulerConfig,
    TrainingConfig,
    UpdateConfig,
)
from anyrec.core.config.tune import SearchRange, TuneConfig

__all__ = [
    "MAX_DIM",
    "MAX_ROWS",
    "TWO_TOWER",
    "BlendConfig",
    "CardConfig",
    "ClusterConfig",
    "ColumnConfig",
    "Component",
    "Config",
    "DataConfig",
    "DiagnosticsConfig",
    "EvaluationConfig",
    "EventsConfig",
    "ExperimentConfig",
    "FeastConfig",
    "Feature",
    "FormatConfig",
    "FusionChoice",
    "IndexChoice",
    "InteractionChoice",
    "LossChoice",
    "ModelChoice",
    "NegativesChoice",
    "OptimizerConfig",
    "PipelineConfig",
    "RankConfig",
    "RankTrainingConfig",
    "RerankConfig",
    "RetrieveConfig",
    "SchedulerConfig",
    "SearchRange",
    "Section",
    "ServingConfig",
    "SideTable",
    "SourceTable",
    "SourcesConfig",
    "SplitConfig",
    "TableConfig",
    "TowerConfig",
    "TrainingConfig",
    "TuneConfig",
    "UpdateConfig",
    "VariantConfig",
]
