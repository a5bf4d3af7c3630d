"""The model card: README.md of a model directory, with the metadata that the Hugging Face Hub reads in its header."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from anyrec.core.config.card import CardConfig
from anyrec.core.types import JsonObject
from anyrec.storage.parts import ModelParts

TAGS = ["anyrec", "recommendation", "recommender-system"]
USE = (
    "Ranking the items of the catalogue for its users, and for new users by their features or their history. It was "
    "measured on data of the same kind as its training data, and says nothing of other catalogues."
)
LIMITS = (
    "It repeats what users did, so items and groups of users that are rare in the training data get worse lists. It is "
    "not made for decisions about people. The directory holds the records and the histories of the users: publish it "
    "only if they may be published."
)
NOT_STATED = "not stated"


def model_card(parts: ModelParts, data_hash: str) -> str:
    """Return README.md of the model directory.

    Args:
        parts: The model.
        data_hash: Hash of the training data.
    """
    model, card = parts.model, parts.model.config.card
    config, dataset = model.config, model.dataset
    lines = [
        "---",
        yaml.safe_dump(_metadata(parts), sort_keys=False, allow_unicode=True).rstrip("\n"),
        "---",
        "",
        f"# {config.name}",
        "",
        f"A recommender trained by anyrec on {len(dataset.users):,} users, {len(dataset.items):,} items and "
        f"{int(model.seen.counts().sum()):,} distinct user-item pairs.",
        "",
        *(f"- {line}" for line in model.describe()),
        *_about(card, data_hash),
    ]
    if parts.metrics:
        lines += [
            "",
            "## Metrics",
            "",
            "| | " + " | ".join(parts.metrics) + " |",
            "|---" * (1 + len(parts.metrics)) + "|",
        ]
        for name in metric_names(parts.metrics):
            cells = (f"{part[name]:.4f}" if name in part else "" for part in parts.metrics.values())
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if parts.notes:
        lines += ["", "## Notes of the training", "", *(f"- {note}" for note in parts.notes)]
    lines += [
        "",
        "## Use",
        "",
        "```bash",
        "anyrec recommend --model-path <this folder> --data people.json --top-k 10",
    ]
    lines += ["```", "", "```python", "from anyrec import Recommender", ""]
    lines += ['Recommender.from_pretrained("<this folder, or owner/name on the Hub>").recommend(k=10)', "```", ""]
    return "\n".join(lines)


def metric_names(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of all metrics that at least one part of the split has; a part lacks a metric that is NaN."""
    return list(dict.fromkeys(name for part in parts.values() for name in part))


def _about(card: CardConfig, data_hash: str) -> list[str]:
    """Return the sections on use, data and licences."""
    return [
        "",
        "## Intended use",
        "",
        card.intended_use or USE,
        "",
        "## Limitations",
        "",
        card.limitations or LIMITS,
        "",
        "## Data and licences",
        "",
        f"- Licence of the model: {card.license or NOT_STATED}",
        f"- Training data: {card.data or NOT_STATED}",
        f"- Licence of the data: {card.data_license or NOT_STATED}",
        f"- Hash of the data: `{data_hash}`",
    ]


def _metadata(parts: ModelParts) -> JsonObject:
    """Return the metadata of the header: library, tags, licence, and the metrics of the last measured part."""
    config = parts.model.config
    found: JsonObject = {"library_name": "anyrec", "tags": [*TAGS, config.model.type]}
    if config.card.license is not None:
        found["license"] = config.card.license
    part = next((one for one in ("test", "validation") if parts.metrics.get(one)), None)
    if part is not None:
        measured = [{"type": name, "value": float(value)} for name, value in parts.metrics[part].items()]
        data = {"name": config.card.data or config.name, "type": config.name, "split": part}
        task = {"type": "recommendation", "name": "Recommendation"}
        found["model-index"] = [
            {"name": config.name, "results": [{"task": task, "dataset": data, "metrics": measured}]}
        ]
    return found
