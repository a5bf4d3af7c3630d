"""Models, data and texts for the tests of the report."""

import itertools

import numpy as np
import pyarrow as pa
from small import small_dataset

from anyrec.data.dataset import Dataset
from anyrec.data.synthetic.generate import generate
from anyrec.recommender import Recommender
from anyrec.report import figures
from anyrec.report.collect import collect_report_data
from anyrec.report.write import write_report

LAST = {"protocol": "leave_last_out"}


def tower(**changes):
    """Return the config of a two-tower model for planted data that trains in half a second."""
    training = {"epochs": 8, "batch_size": 256, "patience": None, "optimizer": {"learning_rate": 0.01}}
    features = {"temporal": None, "text": None}
    return {"defaults": "fixed", "dim": 16, "features": features, "training": training, **changes}


def classical(name, evaluation=None, split=LAST, **options):
    return {
        "model": {"type": name, **options},
        "evaluation": evaluation or {"baselines": ["popularity"]},
        "split": split,
    }


def fit(config, dataset=None):
    return Recommender.from_config(config).fit(dataset or small_dataset(), progress=False)


def report_data(config, dataset=None):
    return collect_report_data(fit(config, dataset), progress=False)


def with_column(table, name, values):
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return table.drop_columns([name] if name in table.column_names else []).append_column(name, values)


def changed(data, **tables):
    kept = {"users": data.users, "items": data.items, "interactions": data.interactions}
    return Dataset(**{**kept, **tables}, root=data.root, roles=data.roles)


def planted(*preferences, seed=0):
    """Return data of users who choose by `preferences` only, with a numeric user feature that is noise."""
    data = generate(users=200, items=60, interactions=2400, seed=seed, preferences=preferences).dataset
    users = with_column(data.users, "continuous.noise", np.random.default_rng(1).normal(size=200))
    return changed(data, users=users, items=data.items.drop_columns(["image.views"]))


def shuffled(data, seed=0):
    """Return the data with the items of all interactions permuted; repeated pairs are dropped."""
    items = data.interactions["item_id"].combine_chunks()
    items = items.take(pa.array(np.random.default_rng(seed).permutation(len(items))))
    first = {}
    for row, pair in enumerate(zip(data.interactions["user_id"].to_pylist(), items.to_pylist(), strict=True)):
        first.setdefault(pair, row)
    table = with_column(data.interactions, "item_id", items)
    return changed(data, interactions=table.take(pa.array(list(first.values()))))


def planted_report(folder):
    """Return the report data of a model on planted data, and `folder`, which gets its report."""
    found = report_data(tower(), planted("occupation"))
    write_report(found, folder)
    return found, folder


def skip_drawing(monkeypatch):
    """Skip the drawing of figures, for tests of the text."""
    monkeypatch.setattr(
        figures, "rendered", lambda figure, name, caption, labels=None: figures.Picture(name, "<svg />", b"", caption)
    )


def first_paragraph(markdown):
    """Return the first paragraph after the title."""
    return next(part for part in markdown.split("\n\n")[1:] if part.strip())


def table_under(markdown, heading):
    """Return the rows of the first table of a section of report.md, without the rule and the emphasis."""
    lines = markdown.split(f"## {heading}\n")[1].splitlines()
    lines = itertools.takewhile(
        lambda line: line.startswith("|"), itertools.dropwhile(lambda line: line[:1] != "|", lines)
    )
    return [[cell.strip("*") for cell in line[2:-2].split(" | ")] for line in lines if not line.startswith("|---")]
