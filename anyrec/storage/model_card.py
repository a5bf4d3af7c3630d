"""The model card: what a model directory says of itself to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


def model_card(recommender: Recommender) -> str:
    """README.md of the model directory."""
    config, dataset = recommender.config, recommender.dataset
    lines = [
        f"# {config.name}",
        "",
        f"A recommender trained by anyrec on {len(dataset.users):,} users, {len(dataset.items):,} items and "
        f"{int(recommender.seen.counts().sum()):,} distinct user-item pairs.",
        "",
        *(f"- {line}" for line in recommender.describe()),
    ]
    if recommender.metrics:
        lines += ["", "| | " + " | ".join(recommender.metrics) + " |", "|---" * (1 + len(recommender.metrics)) + "|"]
        for name in metric_names(recommender.metrics):
            cells = (f"{part[name]:.4f}" if name in part else "" for part in recommender.metrics.values())
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if recommender.notes:
        lines += ["", "What its training said of the data:", "", *(f"- {note}" for note in recommender.notes)]
    lines += ["", "Use it: `python inference.py --model_path <this folder> --data people.json --top_k 10`.", ""]
    return "\n".join(lines)


def metric_names(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The names of all metrics that at least one part has: a metric that is not a number in one part is not there."""
    return list(dict.fromkeys(name for part in parts.values() for name in part))
