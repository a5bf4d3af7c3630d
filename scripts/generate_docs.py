"""Writes config.md and data-errors.md from the code: `make docs`."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent.parent / "docs"
SECTIONS = {
    "Config": "The config",
    "DataConfig": "data",
    "SplitConfig": "split",
    "Feature": "features.<group>",
    "TowerConfig": "user, item",
    "TrainingConfig": "training",
    "OptimizerConfig": "training.optimizer",
    "SchedulerConfig": "training.scheduler",
    "EvaluationConfig": "evaluation",
    "PipelineConfig": "pipeline",
    "RetrieveConfig": "pipeline.retrieve",
    "RankConfig": "pipeline.rank",
    "RankTrainingConfig": "pipeline.rank.training",
    "RerankConfig": "pipeline.rerank",
}
KINDS = {
    "encoder": "Encoders",
    "fusion": "Fusions",
    "interaction": "Interactions",
    "loss": "Losses",
    "sampler": "Negatives",
    "head": "Heads",
    "classical": "Classical models (`model`)",
    "index": "Indexes (`index`)",
    "source": "Sources (`pipeline.retrieve.sources`)",
    "rule": "Rules (`pipeline.rerank.rules`)",
}
START = """# The config

One JSON object; every key is optional, and an unknown one is refused with the nearest known one. A key of the model or its
training that is not set is chosen to fit the data ([defaults.md](defaults.md)); the defaults listed below hold for it with
`"defaults": "fixed"`. `anyrec train --print-config` prints the complete config for some data, `anyrec init data.json` a config
for them, and `anyrec schema` the JSON Schema for an editor. The complete config is saved with each model and reruns alone.
`--set section.key=value` changes a key from the command line; the value is JSON, or a text as it stands.

Values are strict: a text is no number and `true` is no 1. The file is UTF-8; a key may occur once in an object. All faults are
reported together, each with its JSON pointer, before anything is trained (exit code 2).

A component (`fusion`, `interaction`, `loss`, `negatives`, a head, an encoder) is named by `type`; its other keys are that
plugin's own options, listed below. Switching the fusion is one word: `--set fusion.type=attention`. Options of `fusion`, `loss`,
`negatives`, `interaction` and `index` may be set without `type`: they must be options of the component that is the default.

```json
{
  "name": "shop",
  "dim": 64,
  "features": {"text": {"type": "sentence", "model": "models/all-MiniLM-L6-v2"}, "image": null},
  "fusion": {"type": "gated"},
  "user": {"fusion": {"type": "attention", "num_heads": 4}},
  "loss": {"type": "softmax"},
  "negatives": {"type": "mixed", "block": 256, "uniform": 128},
  "training": {"epochs": 30, "optimizer": {"learning_rate": 0.002, "weight_decay": 0.5}}
}
```
"""
FEATURES = """In `features`, a group's other keys are options of its encoder; `fields` gives single features another encoder or null;
`pool_group` averages the group's features into one vector before the fusion.
"""
LEGACY = """## The older flat style

Flat keys of the older style (`embedding_dim`, `loss_type`, `user_use_simple_fusion`, `text_encoder_config`, ...) are accepted
and translated by `anyrec/core/legacy.py`; each translation is printed when training starts. `loss_type: contrastive` becomes
InfoNCE over the batch; `*_use_simple_fusion: false` becomes `attention`; a null encoder config switches the modality off;
`train_split` becomes a random split whose rest is shared by validation and test.
"""
ERRORS = """# What bad data is told

All faults are found in one pass and told together, at most 20 of a kind, the rest counted; exit code 2, nothing is written.
`anyrec validate data.json` checks without training. This table is what the tests' bad inputs print.

| input | message |
|---|---|"""
IMAGES = """
Images: missing, outside the image root, corrupt (truncated, of no listed format), too large (more than 64 million pixels, read from the
header before decoding) and URLs are counted by kind, masked, and reported with the first example; under `"strict": true` they are errors.
Features that no record has are left out, with a note. Interactions of unknown ids are errors; `data.unknown_ids` may drop or keep them.
"""


def config_page() -> str:
    from anyrec.core import config
    from anyrec.core.discovery import discover

    parts = [START]
    for name, title in SECTIONS.items():
        rows = [
            f"| `{key}` | {_default(field)} | {_cell(field.description)} |"
            for key, field in getattr(config, name).model_fields.items()
        ]
        parts.append("\n".join([f"## {title}", "", "| key | default | what it does |", "|---|---|---|", *rows, ""]))
    parts.append(FEATURES)
    registry = discover()
    for kind, title in KINDS.items():
        rows = []
        for plugin in registry.plugins(kind):
            options = "<br>".join(
                f"`{key}` = {_default(field)}" + (f": {field.description}" if field.description else "")
                for key, field in plugin.load().Params.model_fields.items()
            )
            role = f", {plugin.role}" if plugin.role else ""
            reads = f" (reads `{plugin.group}`{role})" if kind == "encoder" else ""
            rows.append(f"| `{plugin.type}` | {_cell(plugin.doc)}{reads} | {_cell(options)} |")
        parts.append("\n".join([f"## {title}", "", "| type | what it is | options |", "|---|---|---|", *rows, ""]))
    return "\n".join([*parts, LEGACY])


def errors_page() -> str:
    """The message of every fault that tests/test_read.py plants, and of files that are empty or cut short."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    from test_read import FAULTY, document

    rows = []
    for name, (spoil, where, _) in FAULTY.items():
        spoil(bad := document())
        told = [line.strip() for line in _message(bad) if line.strip().startswith(f"{where}:")]
        rows.append(f"| {name} | `{_cell(told[0])}` |")
    for label, text in {"an empty file": "", "a file cut short": '{"user_data": ['}.items():
        rows.append(f"| {label} | `{re.sub(r'/tmp/[^/]+/', '', _message(text)[1].strip())}` |")
    return "\n".join([ERRORS, *rows, IMAGES])


def _message(bad: Any) -> list[str]:
    from test_read import read

    from anyrec.core.errors import DataError

    with tempfile.TemporaryDirectory() as folder:
        try:
            read(Path(folder), bad)
        except DataError as error:
            return str(error).splitlines()
    raise AssertionError(f"no fault was found in {bad}")


def _default(field: Any) -> str:
    from anyrec.core.config import Component

    value = field.default_factory() if field.default_factory else field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Component):
        return f'`{{"type": "{value.type}"}}`'
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{json.dumps(value, default=lambda part: part.model_dump())}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    os.environ["ANYREC_NO_PLUGINS"] = "1"
    (DOCS / "config.md").write_text(config_page())
    (DOCS / "data-errors.md").write_text(errors_page())
