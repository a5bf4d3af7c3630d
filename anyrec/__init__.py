"""anyrec: a recommender trained on anybody's data.

from anyrec import Dataset, Recommender

recommender = Recommender.from_config("cfg.json").fit(Dataset.read("data.json"))
recommender.recommend(["user 1"], k=10)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyrec.core.config import Config
    from anyrec.core.contracts import Classical, Encoder, Fusion, Head, Interaction, Loss, Sampler
    from anyrec.core.hooks import hookimpl
    from anyrec.data.dataset import Dataset
    from anyrec.pipeline.contracts import Rule, Source
    from anyrec.recommender import Recommender
    from anyrec.retrieval.index import Index

__version__ = "0.1.0"
__all__ = [
    "Classical",
    "Config",
    "Dataset",
    "Encoder",
    "Fusion",
    "Head",
    "Index",
    "Interaction",
    "Loss",
    "Recommender",
    "Rule",
    "Sampler",
    "Source",
    "hookimpl",
]

_HOMES = {
    "Config": "core.config",
    "Dataset": "data.dataset",
    "Recommender": "recommender",
    "Index": "retrieval.index",
    "Rule": "pipeline.contracts",
    "Source": "pipeline.contracts",
    "hookimpl": "core.hooks",
    **dict.fromkeys(["Classical", "Encoder", "Fusion", "Head", "Interaction", "Loss", "Sampler"], "core.contracts"),
}


def __getattr__(name: str) -> Any:
    """Each name is imported when first used, so that `import anyrec` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'anyrec' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"anyrec.{_HOMES[name]}"), name)
