"""Data with planted preferences, so that the right model is known: any size, every feature group, one seed.

Each preference links a fact about a user to a fact about an item, and each can be planted or left out:

    occupation  categorical.occupation   ->  categorical.category (and the shape drawn in the image)
    location    categorical.location     ->  categorical.weather
    age         continuous.age           ->  a style that only the item's image shows (its colours and pattern)
    bio         text.bio                 ->  a theme that only the item's text.description names, in other words
    price       temporal.spending        ->  continuous.price
    history     temporal.recent_items    ->  a series that only items had together reveal
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.files import atomic_files
from anyrec.data.dataset import Dataset
from anyrec.data.formats.times import TIME
from anyrec.data.formats.write_json import write_json
from anyrec.data.synthetic.draw import SIZE, draw_items, refuse_stream
from anyrec.data.synthetic.world import (
    AGES,
    CATEGORIES,
    NOUNS,
    PREFERENCES,
    SERIES,
    THEMES,
    WEATHERS,
    World,
    draw_people,
    draw_traits,
    item_ids,
)

STRENGTH = 4.0
"""How much more likely, in powers of e, an item becomes for each planted preference that it matches."""
MOST_CANDIDATES = 2000
"""With more items than this, each block of users chooses among this many of them, drawn uniformly."""
START = np.datetime64("2023-01-01", "us").astype(np.int64)
TWO_YEARS = 730 * 86_400_000_000


@dataclass
class Synthetic:
    """A dataset and the truth behind it.

    Attributes:
        dataset: What a trainer may see.
        world: The items' hidden traits.
        people: (users,) each: the users' hidden tastes.
    """

    dataset: Dataset
    world: World
    people: dict[str, np.ndarray]

    def truth(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return (users, items) float32, the planted affinity, with rows as in the dataset."""
        return self.world.affinity(self.people, rows)

    def new_users(self, count: int, seed: int) -> tuple[Dataset, np.ndarray, dict[str, np.ndarray]]:
        """Draw people of the same world who are not in the dataset.

        Args:
            count: The number of people.
            seed: Seed of the draw.

        Returns:
            Their records, their (people, items) affinity, and their tastes.
        """
        rng = np.random.default_rng([self.world.seed, 7, seed])
        people = draw_people(count, rng)
        users = _user_table(people, self.world, rng, 0.0, [f"new{n}" for n in range(count)])
        empty = self.dataset.interactions.slice(0, 0)
        dataset = Dataset(users, self.dataset.items.slice(0, 0), empty, self.dataset.root, self.dataset.roles)
        return dataset, self.world.affinity(people), people

    def write(self, path: Path, images: bool = True, pixels: int = SIZE) -> None:
        """Write the JSON, and the items' PNG files in `images/` next to it, as one unit.

        Args:
            path: The JSON file.
            images: Whether to draw the images.
            pixels: Side of the images.

        Raises:
            OutputError: If the files cannot be written, or if `path` is a device or a pipe and there are images.
        """
        users, items, interactions = self.dataset.users, self.dataset.items, self.dataset.interactions
        if not images:
            kept = [name for name in items.column_names if name != "image.views"]
            write_json(Dataset(users, items.select(kept), interactions), path)
            return
        refuse_stream(path)
        path = Path(os.path.realpath(path))
        with atomic_files(path.parent, path.name) as new:
            draw_items(self.world, new / "images", pixels)
            write_json(Dataset(users, items, interactions), new / path.name)


def generate(
    *,
    users: int = 1000,
    items: int = 100,
    interactions: int = 13_600,
    seed: int = 0,
    noise: float = 0.1,
    preferences: Collection[str] = PREFERENCES,
    missing: float = 0.03,
    root: Path | None = None,
) -> Synthetic:
    """Make a dataset with `preferences` planted.

    Args:
        users: The number of users.
        items: The number of items.
        interactions: About how many interactions there are; fewer if there are too few items to choose from.
        seed: Seed of all draws.
        noise: The fraction of interactions that are random.
        preferences: The preferences to plant.
        missing: The fraction of records that lack each optional feature.
        root: Folder that relative image names start from.
    """
    rng = np.random.default_rng([seed, 1])
    world = World(seed, tuple(p for p in PREFERENCES if p in preferences), draw_traits(items, rng))
    people = draw_people(users, rng)
    user_ids = [f"user{n}" for n in range(users)]
    user_table = _user_table(people, world, rng, missing, user_ids)
    item_table = _item_table(world, rng, missing)
    table = _interactions(world, people, user_table, rng, interactions, noise)
    roles = {
        "user.spending": "numbers",
        "user.recent_items": "items",
        "user.logins": "timestamps",
        "item.price_history": "numbers",
    }
    return Synthetic(Dataset(user_table, item_table, table, root or Path(), roles), world, people)


def _user_table(
    people: dict[str, np.ndarray], world: World, rng: np.random.Generator, missing: float, ids: list[str]
) -> pa.Table:
    """Return the users' records."""
    count = len(ids)
    jobs = np.array([job for pair in CATEGORIES.values() for job in pair])
    cities = np.array([city for three in WEATHERS.values() for city in three])
    hobbies = np.array([theme[:3] for theme in THEMES.values()])
    low, high = np.array(AGES).T
    ages = np.floor(low[people["style"]] + rng.random(count) * (high - low)[people["style"]])
    first, second = rng.permuted(np.tile(np.arange(3), (count, 1)), axis=1)[:, :2].T
    bio = pc.binary_join_element_wise(
        "My free time goes to ",
        pa.array(hobbies[people["theme"], first]),
        " and ",
        pa.array(hobbies[people["theme"], second]),
        ".",
        "",
    )
    spending = np.clip(people["price"][:, None] + rng.normal(0, 0.04, (count, 6)), 0, 1) * 95 + 5
    logins = np.sort(START - rng.integers(0, 30 * 86_400_000_000, (count, 4)), axis=1)
    table = pa.table(
        {
            "user_id": ids,
            "categorical.occupation": jobs[people["category"] * 2 + rng.integers(0, 2, count)],
            "categorical.location": cities[people["weather"] * 3 + rng.integers(0, 3, count)],
            "continuous.age": ages,
            "text.bio": bio,
            "temporal.spending": _lists(np.round(spending, 2), pa.float64()),
            "temporal.recent_items": _recent(people["series"], world, rng),
            "temporal.logins": _lists(logins, TIME),
        }
    )
    return _with_gaps(table, missing, rng)


def _recent(series: np.ndarray, world: World, rng: np.random.Generator, each: int = 4) -> pa.Array:
    """Return each person's last items before the data begin: of their favourite series if history is planted."""
    own = world.traits["series"]
    if "history" not in world.preferences:
        series = rng.integers(0, SERIES, len(series))
    order, counts = np.argsort(own, kind="stable"), np.bincount(own, minlength=SERIES)
    starts = np.cumsum(counts) - counts
    ring = rng.integers(0, 1 << 30, len(series))[:, None] + np.arange(each)
    picked = order[np.minimum(starts[series][:, None] + ring % np.maximum(counts[series], 1)[:, None], len(own) - 1)]
    names = pa.array(item_ids(len(own)))
    return pa.ListArray.from_arrays(
        pa.array(np.arange(len(series) + 1, dtype=np.int32) * each), names.take(pa.array(picked.ravel()))
    )


def _item_table(world: World, rng: np.random.Generator, missing: float) -> pa.Table:
    """Return the items' records."""
    traits, count = world.traits, len(world.traits["category"])
    categories, weathers = np.array(list(CATEGORIES)), np.array(list(WEATHERS))
    words = np.array([theme[3:] for theme in THEMES.values()])
    nouns = np.array([NOUNS[name] for name in CATEGORIES])
    names = pa.array([str(n) for n in range(count)])
    first, second = rng.permuted(np.tile(np.arange(3), (count, 1)), axis=1)[:, :2].T
    description = pc.binary_join_element_wise(
        "Made with care, with a touch of ",
        pa.array(words[traits["theme"], first]),
        " and ",
        pa.array(words[traits["theme"], second]),
        ".",
        "",
    )
    prices = np.round(traits["price"] * 95 + 5, 2)
    table = pa.table(
        {
            "item_id": item_ids(count),
            "categorical.category": categories[traits["category"]],
            "categorical.weather": weathers[traits["weather"]],
            "continuous.price": prices,
            "text.title": pc.binary_join_element_wise(
                pa.array(np.char.capitalize(nouns[traits["category"]])), names, " "
            ),
            "text.description": description,
            "image.views": pa.array([[f"images/{n}_front.png", f"images/{n}_back.png"] for n in range(count)]),
            "temporal.price_history": _lists(
                np.round(prices[:, None] * rng.uniform(0.95, 1.05, (count, 5)), 2), pa.float64()
            ),
        }
    )
    return _with_gaps(table, missing, rng)


def _interactions(
    world: World, people: dict[str, np.ndarray], users: pa.Table, rng: np.random.Generator, wanted: int, noise: float
) -> pa.Table:
    """Draw interactions: items by affinity with Gumbel noise, a fraction `noise` of them at random."""
    user_rows, item_rows = _choices(world, people, users, rng, wanted, noise)
    times = START + rng.integers(0, TWO_YEARS, len(user_rows)) // 1_000_000 * 1_000_000
    order = np.lexsort((item_rows, times, user_rows))
    user_rows, item_rows, times = user_rows[order], item_rows[order], times[order]
    kinds = pa.array(["view", "like", "purchase"]).take(pa.array(rng.choice(3, len(order), p=[0.6, 0.25, 0.15])))
    rated = rng.random(len(order)) < 0.3
    return pa.table(
        {
            "user_id": users["user_id"].combine_chunks().take(pa.array(user_rows)),
            "item_id": pa.array(item_ids(len(world.traits["category"]))).take(pa.array(item_rows)),
            "interaction_type": kinds,
            "timestamp": pa.array(times).cast(pa.timestamp("us")).cast(TIME),
            "rating": pa.array(rng.integers(3, 6, len(order)).astype(float), mask=~rated),
        }
    )


def _choices(
    world: World, people: dict[str, np.ndarray], users: pa.Table, rng: np.random.Generator, wanted: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (interactions,) user rows and item rows, each pair once."""
    count, items = len(users), len(world.traits["category"])
    shares = rng.lognormal(0, 0.5, count)
    each = np.clip(np.round(shares / shares.sum() * wanted), min(3, items - 4), max(1, items - 5)).astype(np.int64)
    recent = pc.index_in(users["temporal.recent_items"].combine_chunks().flatten(), value_set=pa.array(item_ids(items)))
    owner = pc.list_parent_indices(users["temporal.recent_items"].combine_chunks()).to_numpy()
    recent = recent.to_numpy()
    user_parts, item_parts = [], []
    block = max(1, 4_000_000 // min(items, MOST_CANDIDATES))
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        candidates = (
            np.arange(items) if items <= MOST_CANDIDATES else np.sort(rng.choice(items, MOST_CANDIDATES, replace=False))
        )
        # (rows, candidates): the top n of a score with Gumbel noise are n draws without replacement from its softmax.
        score = STRENGTH * world.affinity(people, rows)[:, candidates] + rng.gumbel(size=(len(rows), len(candidates)))
        mine = (owner >= rows[0]) & (owner <= rows[-1])
        place = np.searchsorted(candidates, recent[mine])
        inside = (place < len(candidates)) & (candidates[np.minimum(place, len(candidates) - 1)] == recent[mine])
        score[owner[mine][inside] - start, place[inside]] = -np.inf  # items from before the data begin are not drawn
        random = rng.binomial(each[rows], noise)
        first = np.argsort(-score, axis=1)[:, : each[rows].max()]
        planned = np.arange(first.shape[1]) < (each[rows] - random)[:, None]
        lines, columns = np.nonzero(planned)
        chosen = first[lines, columns]
        chance = np.where(np.isfinite(score), rng.random(score.shape), -1.0)
        chance[lines, chosen] = -1.0
        extra = np.argsort(-chance, axis=1)[:, : max(1, random.max())]
        more_lines, more_columns = np.nonzero(np.arange(extra.shape[1]) < random[:, None])
        user_parts += [rows[lines], rows[more_lines]]
        item_parts += [candidates[chosen], candidates[extra[more_lines, more_columns]]]
    return np.concatenate(user_parts), np.concatenate(item_parts)


def _with_gaps(table: pa.Table, share: float, rng: np.random.Generator) -> pa.Table:
    """Remove a fraction of the values of each feature, except the history, from which nothing may be missing."""
    for place, name in enumerate(table.column_names):
        if "." in name and name != "temporal.recent_items":
            gone = rng.random(len(table)) < share
            column = table.column(name).combine_chunks()
            table = table.set_column(place, name, pc.if_else(pa.array(gone), pa.scalar(None, column.type), column))
    return table


def _lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return (rows, n) values as lists."""
    flat: Any = pa.array(values.ravel())
    flat = flat.cast(pa.timestamp("us")).cast(kind) if pa.types.is_timestamp(kind) else flat.cast(kind)
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]), flat)
