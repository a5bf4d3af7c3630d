"""The model card: README.md of a model directory."""

from __future__ import annotations

from collections.abc import Mapping

from anyrec.storage.parts import ModelParts


def model_card(parts: ModelParts) -> str:
    """Return README.md of the model directory."""
    model = parts.model
    config, dataset = model.config, model.dataset
    lines = [
        f"# {config.name}",
        "",
        f"A recommender trained by anyrec on {len(dataset.users):,} users, {len(dataset.items):,} items and "
        f"{int(model.seen.counts().sum()):,} distinct user-item pairs.",
        "",
        *(f"- {line}" for line in model.describe()),
    ]
    if parts.metrics:
        lines += ["", "| | " + " | ".join(parts.metrics) + " |", "|---" * (1 + len(parts.metrics)) + "|"]
        for name in metric_names(parts.metrics):
            cells = (f"{part[name]:.4f}" if name in part else "" for part in parts.metrics.values())
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if parts.notes:
        lines += ["", "Notes of the training:", "", *(f"- {note}" for note in parts.notes)]
    lines += ["", "Use it: `python inference.py --model_path <this folder> --data people.json --top_k 10`.", ""]
    return "\n".join(lines)


def metric_names(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of all metrics that at least one part of the split has; a part lacks a metric that is NaN."""
    return list(dict.fromkeys(name for part in parts.values() for name in part))
