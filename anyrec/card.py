"""The model card: what a model directory says of itself to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


def model_card(recommender: Recommender) -> str:
    """README.md of the model directory."""
    config, dataset, model = recommender.config, recommender.dataset, recommender.model
    lines = [
        f"# {config.name}",
        "",
        f"A recommender trained by anyrec on {len(dataset.users):,} users, {len(dataset.items):,} items and "
        f"{int(recommender.seen.counts().sum()):,} distinct user-item pairs.",
        "",
        f"- Interaction `{config.interaction.type}`, loss `{config.loss.type}`, negatives `{config.negatives.type}`, "
        f"{config.dim} dimensions, {sum(model.sizes().values()):,} parameters, seed {config.seed}.",
    ]
    for side in ("user", "item"):
        tower = model.tower(side)
        features = ", ".join(
            f"{name} ({encoder.type})" for name, encoder in zip(tower.features, tower.encoders, strict=True)
        )
        lines.append(f"- {side.capitalize()} tower: {features}; fusion `{tower.fusion.type}`.")
    if recommender.metrics:
        lines += ["", "| | " + " | ".join(recommender.metrics) + " |", "|---" * (1 + len(recommender.metrics)) + "|"]
        for name in next(iter(recommender.metrics.values())):
            lines.append(
                f"| {name} | " + " | ".join(f"{part[name]:.4f}" for part in recommender.metrics.values()) + " |"
            )
    if recommender.notes:
        lines += ["", "What its training said of the data:", "", *(f"- {note}" for note in recommender.notes)]
    lines += ["", "Use it: `python inference.py --model_path <this folder> --data people.json --top_k 10`.", ""]
    return "\n".join(lines)
