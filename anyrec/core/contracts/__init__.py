"""The base class of each kind of component that models and training use.

A component is a class with a `type` (its name in a config), a nested pydantic `Params` (its options) and the methods of
its base class. Discovery finds every such class in a plugin folder; it need not be registered.

- `encoders`: `Encoder` and `HistoryEncoder`, which turn a column into vectors, and their `Context`.
- `towers`: `Fusion` (feature vectors to one vector) and `Interaction` (two vectors to a score).
- `objectives`: `Loss`, `Sampler` of negatives and `Head` (further predictions).
- `classical`: `Classical`, models that are fitted without the training loop.

`Params`, the base class of options, is in `anyrec.core.params`, which loads no torch. The contracts of vector indexes,
candidate sources and rules are in the layers that use them: `anyrec.retrieval.index` and `anyrec.pipeline.contracts`.
"""

from anyrec.core.context import Context, during_request
from anyrec.core.contracts.classical import Classical, Step, TrainingMatrix
from anyrec.core.contracts.encoders import Encoder, HistoryEncoder
from anyrec.core.contracts.objectives import (
    MASK_VALUE,
    FillMask,
    Head,
    Loss,
    Negatives,
    Sampler,
    TrainingPositives,
)
from anyrec.core.contracts.towers import Fields, Fusion, Interaction
from anyrec.core.param_keys import PARTS
from anyrec.core.params import Params, Width, only_with, tunable

__all__ = [
    "MASK_VALUE",
    "PARTS",
    "Classical",
    "Context",
    "Encoder",
    "Fields",
    "FillMask",
    "Fusion",
    "Head",
    "HistoryEncoder",
    "Interaction",
    "Loss",
    "Negatives",
    "Params",
    "Sampler",
    "Step",
    "TrainingMatrix",
    "TrainingPositives",
    "Width",
    "during_request",
    "only_with",
    "tunable",
]
