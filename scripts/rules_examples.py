"""Runs each example of docs/rules.md and writes what it shows, before and after: `python scripts/rules_examples.py`.

An example is a rule in a json block, and below it a comment with whom and what to show. Lists are those of EASE on
`datasets/synthetic`, through the pipeline; a trained two-tower would differ from machine to machine.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.config import PipelineConfig
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.model.classical import ClassicalModel
from anyrec.pipeline.pipeline import Pipeline
from anyrec.recommender import Recommender

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "rules.md"
NOW = 1_735_689_600_000_000  # 2025-01-01
EXAMPLE = re.compile(r"```json\n(\{\"type\".*?)\n```\n\n<!-- (\{.*?\}) -->\n(.*?)<!-- end -->", re.DOTALL)


def made(page: str) -> str:
    """The page with every example's table as it is now."""
    recommender = world()
    return EXAMPLE.sub(lambda match: _example(recommender, *match.groups()[:2]), page)


def world() -> Recommender:
    """EASE on the synthetic data, with two more features of items: when each was first seen, and from which age on it is for."""
    data = Dataset.read(DOCS.parent / "datasets/synthetic/correlated_dataset.json").sorted()
    first = np.full(len(data.items), np.iinfo(np.int64).max)
    np.minimum.at(first, data.item_rows, data.times)
    seen = pa.array([[time] for time in first.tolist()], pa.list_(pa.timestamp("us", "UTC")))
    kinds = data.items.column("categorical.category").to_pylist()
    ages = pa.array([50.0 if kind == "health" else None for kind in kinds], pa.float64())
    items = data.items.append_column("temporal.first_seen", seen).append_column("continuous.from_age", ages)
    data = Dataset(data.users, items, data.interactions, data.root, data.roles)
    config = {"model": {"type": "ease"}, "split": {"protocol": "none"}, "pipeline": {}}
    recommender = Recommender.from_config(config).fit(data, progress=False)
    return _with_vectors(recommender)


class _WithVectors(ClassicalModel):
    """EASE has no item vectors: for mmr and dpp, the first 8 singular vectors of the interactions are used."""

    item_vectors: torch.Tensor

    def vectors(self, side: Side, representations: torch.Tensor) -> torch.Tensor:
        return self.item_vectors[representations[:, 0].long()]


def _with_vectors(recommender: Recommender) -> Recommender:
    users, items = recommender.model.seen.take(np.arange(len(recommender.dataset.users)))
    matrix = np.zeros((len(recommender.dataset.users), len(recommender.dataset.items)))
    matrix[users, items] = 1
    _, values, vectors = np.linalg.svd(matrix / np.sqrt(matrix.sum(0).clip(1)), full_matrices=False)
    found = torch.from_numpy((vectors[:8] * values[:8, None]).T.copy())
    model = recommender.model
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    made = _WithVectors(**{**values, "has_vectors": True})
    object.__setattr__(made, "item_vectors", found)
    return Recommender(recommender.config, recommender.registry, parts=replace(recommender.parts, model=made))


def _example(recommender: Recommender, rule: str, shown: str) -> str:
    asked = json.loads(shown)
    lists = [_titles(recommender, rules, asked) for rules in ([], [json.loads(rule)])]
    changed = ["" if after in lists[0] else " *" for after in lists[1]]
    rows = [
        f"| {n + 1} | {lists[0][n] if n < len(lists[0]) else ''} | {lists[1][n] + changed[n] if n < len(lists[1]) else ''} |"
        for n in range(max(map(len, lists)))
    ]
    table = "\n".join(["| | before | after |", "|---|---|---|", *rows])
    return f"```json\n{rule}\n```\n\n<!-- {shown} -->\n{table}\n<!-- end -->"


def _titles(recommender: Recommender, rules: list[dict[str, Any]], asked: dict[str, Any]) -> list[str]:
    pipeline = Pipeline(
        PipelineConfig.model_validate({"rerank": {"rules": rules}, "strict": True}), recommender.registry
    )
    pipeline.check(recommender.model)
    options = {"exclude_seen": asked.get("exclude_seen", True), "context": asked.get("context"), "now": NOW}
    listed = pipeline.answer(recommender.model, [asked["user"]], asked.get("k", 5), **options).table
    rows = {row["item_id"]: row for row in recommender.dataset.items.to_pylist()}
    return [_title(rows[item], asked["show"]) for item in listed.column("item_id").to_pylist()]


def _title(item: dict[str, Any], features: list[str]) -> str:
    values = [item[name][-1] if isinstance(item[name], list) else item[name] for name in features]
    said = [
        f"{value:%Y-%m-%d}" if hasattr(value, "strftime") else "-" if value is None else str(value) for value in values
    ]
    return f"{item['item_id']}: " + ", ".join(said)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
