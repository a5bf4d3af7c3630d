"""The data doctor: all findings about a dataset, reported before a model is trained on it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from anyrec.core.config import Config
from anyrec.data.dataset import Dataset
from anyrec.data.doctor.id_checks import check_ids, check_unique_categories
from anyrec.data.doctor.leak_checks import check_answers, check_counted, check_lists
from anyrec.data.doctor.near_duplicates import check_images, check_texts
from anyrec.data.doctor.split_checks import check_drift, check_seen_before, check_split
from anyrec.data.doctor.table_checks import (
    check_activity,
    check_cells,
    check_features,
    check_repeats,
    check_size,
    check_tail,
    check_times,
    check_values,
)
from anyrec.data.findings import Finding, count
from anyrec.data.ids import SIDES
from anyrec.data.interpretation import interpretation
from anyrec.data.labels import label_interactions
from anyrec.data.split import split_interactions

LEVELS = ("problem", "warning", "note")


def examine(dataset: Dataset, config: Config | None = None, images: bool = True) -> list[Finding]:
    """Examine a dataset.

    Args:
        dataset: The data.
        config: The config; features that it switches off are not examined.
        images: Open the items' image files (at most 5,000) and compare them.

    Returns:
        All findings, problems first, then by kind.
    """
    config = config or Config()
    dataset = _as_used(dataset.sorted(), config)
    if not len(dataset.interactions):
        return [Finding("problem", "no interactions", "There are no interactions.", "There is nothing to train on.")]
    labels = label_interactions(dataset, config.data, checked=False)
    split, _ = split_interactions(dataset, config.split, config.seed, labels.positive)
    found = [
        *check_size(dataset),
        *check_tail(dataset),
        *check_activity(dataset),
        *check_repeats(dataset),
        *check_seen_before(dataset, labels, split, config.evaluation.repeats),
        *check_ids(dataset),
        *(one for one in interpretation(dataset, config.data) if one.level != "note"),
        *check_values(dataset, labels),
        *check_times(dataset, labels, split),
        *check_features(dataset),
        *check_cells(dataset),
        *check_unique_categories(dataset),
        *check_texts(dataset),
        *(check_images(dataset, config) if images else []),
        *check_lists(dataset, split, config),
        *check_counted(dataset, split),
        *check_answers(dataset, labels, config),
        *check_split(dataset, labels, split),
        *check_drift(dataset, labels, split),
    ]
    return sorted(found, key=lambda finding: (LEVELS.index(finding.level), finding.kind, finding.text))


def as_lines(findings: Sequence[Finding], most: int | None = None) -> list[str]:
    """Return one line for each finding, at most `most` of them, and a line that counts the others."""
    shown = [f"{finding.level}: {finding.text} {finding.advice}" for finding in findings[:most]]
    hidden = len(findings) - len(shown)
    return [*shown, f"... and {count(hidden, 'more finding')}."] if hidden else shown


def _as_used(dataset: Dataset, config: Config) -> Dataset:
    """Return the dataset without the features that the config switches off, whole groups or single ones."""
    tables: dict[str, pa.Table] = {}
    for side in SIDES:
        choices, _ = config.tower(side)
        off = []
        for name in dataset.features(side):
            group, field = name.split(".", 1)
            choice = choices.get(group)
            if (group in choices and choice is None) or (
                choice and field in choice.fields and not choice.fields[field]
            ):
                off.append(name)
        tables[side] = dataset.table(side).drop_columns(off)
    return dataset.with_features(users=tables["user"], items=tables["item"])
