"""Writes the tables of the examples in docs/rules.md: a list before and after each rule. Part of `make docs`.

An example is a rule in a JSON block, followed by a comment with the user and the features to show. The lists are those
of EASE on `datasets/synthetic`: a classical model gives the same lists on every machine.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import zip_longest
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
    """Return the text of the page with the table of every example as it is now."""
    recommender = example_recommender()
    return EXAMPLE.sub(lambda match: _example(recommender, *match.groups()[:2]), page)


def example_recommender() -> Recommender:
    """Return EASE on the synthetic data, with two more item features: `first_seen` (a time), `from_age`."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _WithVectors(ClassicalModel):
    """EASE with item vectors, for the rules mmr and dpp: the first 8 singular vectors of the user-item matrix."""

    item_vectors: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def vectors(self, side: Side, representations: torch.Tensor) -> torch.Tensor:
        return self.item_vectors[representations[:, 0].long()]


def _with_vectors(recommender: Recommender) -> Recommender:
    model = recommender.model
    users, items = model.seen.take(np.arange(len(recommender.dataset.users)))
    matrix = np.zeros((len(recommender.dataset.users), len(recommender.dataset.items)))
    matrix[users, items] = 1
    _, values, vectors = np.linalg.svd(matrix / np.sqrt(matrix.sum(0).clip(1)), full_matrices=False)
    item_vectors = torch.from_numpy((vectors[:8] * values[:8, None]).T.copy())
    options = {one.name: getattr(model, one.name) for one in fields(model)}
    model = _WithVectors(**{**options, "has_vectors": True, "item_vectors": item_vectors})
    return Recommender(recommender.config, recommender.registry, parts=replace(recommender.parts, model=model))


def _example(recommender: Recommender, rule: str, comment: str) -> str:
    """Return the text of an example: the rule, the comment, and the table that the comment describes."""
    request = json.loads(comment)
    before, after = (_titles(recommender, rules, request) for rules in ([], [json.loads(rule)]))
    marked = [title if title in before else f"{title} *" for title in after]
    pairs = zip_longest(before, marked, fillvalue="")
    rows = [f"| {rank} | {left} | {right} |" for rank, (left, right) in enumerate(pairs, 1)]
    table = "\n".join(["| | before | after |", "|---|---|---|", *rows])
    return f"```json\n{rule}\n```\n\n<!-- {comment} -->\n{table}\n<!-- end -->"


def _titles(recommender: Recommender, rules: list[dict[str, Any]], request: dict[str, Any]) -> list[str]:
    """Return the titles of a user's list with these rules, best first."""
    config = PipelineConfig.model_validate({"rerank": {"rules": rules}, "strict": True})
    pipeline = Pipeline(config, recommender.registry)
    pipeline.check(recommender.model)
    options = {"exclude_seen": request.get("exclude_seen", True), "context": request.get("context"), "now": NOW}
    lists = pipeline.answer(recommender.model, [request["user"]], request.get("k", 5), **options).table
    items = {row["item_id"]: row for row in recommender.dataset.items.to_pylist()}
    return [_title(items[item], request["show"]) for item in lists.column("item_id").to_pylist()]


def _title(item: dict[str, Any], features: list[str]) -> str:
    """Return an item's id and the values of these features; the last value of a list, `-` for a missing one."""
    values = [item[name][-1] if isinstance(item[name], list) else item[name] for name in features]
    texts = ["-" if one is None else f"{one:%Y-%m-%d}" if isinstance(one, datetime) else str(one) for one in values]
    return f"{item['item_id']}: " + ", ".join(texts)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
