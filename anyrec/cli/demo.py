"""`anyrec demo`: generate data with planted preferences, train, and recommend to new users with the reasons."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from anyrec.cli.run import report_run, save_overview
from anyrec.core.config import Config
from anyrec.core.files import atomic_files
from anyrec.core.outputs import check_output
from anyrec.core.types import JsonObject
from anyrec.data.doctor.examine import examine
from anyrec.data.synthetic.generate import Synthetic, generate
from anyrec.data.synthetic.world import trait_name
from anyrec.evaluation.statistics import intervals
from anyrec.recommender import Recommender
from anyrec.report import figures, numbers, page
from anyrec.report.record import REPORT
from anyrec.storage.model_directory import check_model_output

CONFIG: JsonObject = {
    "name": "demo",
    "defaults": "fixed",
    "dim": 64,
    "id_dropout": 0.5,
    "features": {"history": {"block": "mean"}},
    "split": {"protocol": "cold_users"},
    "loss": {"type": "full_softmax"},
    "training": {"epochs": 15, "batch_size": 512, "optimizer": {"learning_rate": 0.003}, "patience": 4},
}
PIXELS = 160
"""Side of the pictures of items."""
SHOWN, K = 8, 5
"""Number of new users that are shown, and of items recommended to each."""
TRAITS = ("category", "weather", "style", "theme")
"""Properties of items that the planted preferences refer to."""
MODEL = "this model"


@dataclass(frozen=True)
class RecommendedItem:
    """An item that was recommended to a new user.

    Attributes:
        title: Its title, or its id.
        number: Its row.
        matches: The user's planted preferences that the item has.
        affinity: The planted affinity of the user to the item.
    """

    title: str
    number: int
    matches: list[str]
    affinity: float


@dataclass(frozen=True)
class NewUser:
    """A user who is not in the training data. preferences: planted ones. best: greatest affinity to any item."""

    name: str
    bio: str
    preferences: list[str]
    items: list[RecommendedItem]
    best: float


def run_demo(folder: Path, console: Console) -> None:
    """Generate data, train a model, recommend to new users, and write a report of each step.

    Args:
        folder: Gets data.json, images/, model/, checkpoints/, metrics.jsonl, overview.json, report.html, report.md and,
            with the evaluation, measured/.
        console: Where progress and results are printed.

    Raises:
        OutputError: If the folder cannot be written.
    """
    started = time.perf_counter()
    check_output(folder, "inside")
    check_model_output(folder / "model")
    world = generate(users=1000, items=120, interactions=16_000, seed=0, noise=0.1, root=folder)
    world.write(folder / "data.json", pixels=PIXELS)
    console.print(
        f"{len(world.dataset.users):,} people, {len(world.dataset.items):,} items with two pictures each, "
        f"{len(world.dataset.interactions):,} interactions, a tenth of them random -> {folder / 'data.json'}"
    )

    def report(entry: JsonObject) -> None:
        ndcg = entry["validation"]["ndcg@10"]
        console.print(f"epoch {entry['epoch']:>2}   loss {entry['loss']:.3f}   validation ndcg@10 {ndcg:.3f}")

    recommender = Recommender.from_config(Config.model_validate(CONFIG)).fit(
        world.dataset, run_dir=folder, report=report
    )
    recommender.save(folder / "model")
    save_overview(recommender, folder, examine(world.dataset, recommender.config))
    newcomers, affinity, people = world.new_users(200, seed=1)
    lists = recommender.recommend(newcomers, K)
    users = _new_users(world, newcomers.users, people, affinity, lists)
    console.print(_table(users[:SHOWN]))
    values = _planted_values(world, lists, affinity)
    console.print(_summary(values))
    with atomic_files(folder, REPORT) as new:
        page.write_page("anyrec demo: new users", _sections(folder, users[:SHOWN], values, recommender), new)
    report_run(recommender, folder / "measured", console)
    console.print(f"report: {folder / 'report.html'}   ({time.perf_counter() - started:.0f} s in all)")


def planted_ndcg_by_user(chosen: np.ndarray, affinity: np.ndarray) -> np.ndarray:
    """Compute ndcg with the planted affinity as gain; the ideal list has the k items of the greatest affinity.

    Args:
        chosen: (users, k) item rows, best first.
        affinity: (users, items) planted affinity.

    Returns:
        (users,) values from 0 to 1.
    """
    discount = 1 / np.log2(np.arange(2, chosen.shape[1] + 2))
    gained = (np.take_along_axis(affinity, chosen, 1) * discount).sum(1)
    best = (-np.sort(-affinity, axis=1)[:, : chosen.shape[1]] * discount).sum(1)
    return gained / np.maximum(best, 1e-9)


def planted_ndcg(chosen: np.ndarray, affinity: np.ndarray) -> float:
    """Return the mean of `planted_ndcg_by_user` over users."""
    return float(planted_ndcg_by_user(chosen, affinity).mean())


def _planted_values(world: Synthetic, lists: pa.Table, affinity: np.ndarray) -> dict[str, np.ndarray]:
    """Return (users,) planted ndcg of the model, of the most popular items and of random items."""
    items = len(world.dataset.items)
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    chosen = np.array([place[name] for name in lists["item_id"].to_pylist()]).reshape(len(affinity), -1)
    counts = np.bincount(world.dataset.item_rows, minlength=items)
    popular = np.tile(np.argsort(-counts, kind="stable")[:K], (len(affinity), 1))
    random = np.random.default_rng(0).random(affinity.shape).argsort(1)[:, :K]
    return {
        MODEL: planted_ndcg_by_user(chosen, affinity),
        "popularity": planted_ndcg_by_user(popular, affinity),
        "chance": planted_ndcg_by_user(random, affinity),
    }


def _summary(values: dict[str, np.ndarray]) -> str:
    means = ", ".join(f"{name} {value.mean():.3f}" for name, value in values.items())
    users = len(values[MODEL])
    return f"Against the planted truth, for {users} people never seen in training (ndcg@{K}, 1 is perfect): {means}."


def _new_users(
    world: Synthetic, users: pa.Table, people: dict[str, np.ndarray], affinity: np.ndarray, lists: pa.Table
) -> list[NewUser]:
    """Join each new user with the recommended items and the planted preferences that each item matches."""
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    titles = world.dataset.items["text.title"].to_pylist()
    recommended: dict[str, list[str]] = {}
    for user, item in zip(lists["user_id"].to_pylist(), lists["item_id"].to_pylist(), strict=True):
        recommended.setdefault(user, []).append(item)
    found = []
    for number, user in enumerate(users.to_pylist()):
        wanted = {trait: trait_name(trait, people[trait][number]) for trait in TRAITS}
        items = []
        for name in recommended[user["user_id"]]:
            row = place[name]
            has = {trait: trait_name(trait, world.world.traits[trait][row]) for trait in TRAITS}
            matches = [value for trait, value in wanted.items() if has[trait] == value]
            items.append(RecommendedItem(titles[row] or name, row, matches, float(affinity[number, row])))
        name = f"{user['categorical.occupation']}, {user['continuous.age']:.0f}, {user['categorical.location']}"
        found.append(NewUser(name, user["text.bio"] or "", list(wanted.values()), items, float(affinity[number].max())))
    return found


def _table(users: list[NewUser]) -> Table:
    table = Table(
        "who, never seen before",
        "gets",
        "because it meets (planted tastes)",
        "of the best possible",
        header_style="bold",
    )
    for user in users:
        for rank, item in enumerate(user.items[:3]):
            name = f"{user.name}\n  likes {', '.join(user.preferences)}" if rank == 0 else ""
            table.add_row(name, item.title, " + ".join(item.matches) or "-", f"{item.affinity:.1f} / {user.best:.1f}")
        table.add_section()
    return table


def _sections(
    folder: Path, users: list[NewUser], values: dict[str, np.ndarray], recommender: Recommender
) -> list[page.Section]:
    """Return the sections of the demo's report: the result, and the recommendations for new users."""
    spans = intervals(values)
    metric = f"planted ndcg@{K}"
    rows = [[name, numbers.interval(span, 3)] for name, span in spans.items()]
    metrics = recommender.metrics.get("test", {})
    held_out = (
        f"On the held-out interactions of users who are not in the training data, a tenth of them random: ndcg@10 "
        f"{metrics.get('ndcg@10', 0):.3f}, recall@10 {metrics.get('recall@10', 0):.3f}. The evaluation with baselines, "
        "intervals and feature importance is in `measured/report.html`."
    )
    result: list[page.Block] = [
        page.Text(_summary(values), strong=True),
        page.Text(held_out),
        page.Table(["", f"{metric} [95%]"], rows, "The gain is the planted affinity of a user to an item.", marked=[0]),
        figures.bars(spans, MODEL, metric),
    ]
    explanation = page.Text(
        "The labels of an item are the user's planted preferences that it matches: category by occupation, weather by "
        "home, style (visible only in the picture) by age, theme (only in the item's description) by the words of the "
        "bio."
    )
    gallery = page.Gallery([_profile(folder, user) for user in users])
    return [page.Section("", result), page.Section("Recommendations for new users", [explanation, gallery])]


def _profile(folder: Path, user: NewUser) -> page.Profile:
    cards = [
        page.Card(item.title, picture=_picture(folder, item.number), badges=item.matches, marked=bool(item.matches))
        for item in user.items
    ]
    notes = [("Bio", user.bio)] if user.bio else []
    preferences = ", ".join(user.preferences)
    return page.Profile(f"{user.name} (planted preferences: {preferences})", [("Recommended", cards)], notes)


def _picture(folder: Path, number: int) -> str:
    picture = base64.b64encode((folder / "images" / f"{number}_front.png").read_bytes()).decode()
    return f"data:image/png;base64,{picture}"
