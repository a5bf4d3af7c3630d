"""Data in the manner of an online shop's reviews: products, customers, and purchases, views and ratings.

Products have a category, a brand, a price and a popularity with a long tail. Customers prefer one to three categories,
and a level of prices in them. The numbers of users, items and interactions are exactly those that are requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anyrec.core.errors import Fault, InputError
from anyrec.core.files import atomic_files
from anyrec.core.outputs import is_stream
from anyrec.core.progress import progress_bar
from anyrec.data.dataset import Dataset
from anyrec.data.formats.times import TIME
from anyrec.data.formats.write_json import write_json
from anyrec.data.synthetic.diffusion import Painter
from anyrec.data.synthetic.draw import draw_item, refuse_stream
from anyrec.data.synthetic.world import STYLES

CATEGORIES = {
    "Electronics": ("tech", (15, 600), ("headphones", "charger", "speaker", "keyboard", "camera", "monitor")),
    "Books": ("books", (5, 45), ("novel", "cookbook", "biography", "atlas", "thriller", "textbook")),
    "Home & Kitchen": ("kitchen", (8, 220), ("frying pan", "kettle", "blender", "knife set", "lamp", "storage box")),
    "Health & Household": (
        "health",
        (4, 90),
        ("vitamins", "thermometer", "first aid kit", "soap", "scale", "massager"),
    ),
    "Tools & Home Improvement": (
        "tools",
        (6, 320),
        ("drill", "screwdriver set", "ladder", "tape", "saw", "work light"),
    ),
    "CDs & Vinyl": ("music", (7, 60), ("jazz album", "opera", "live recording", "soundtrack", "box set", "single")),
}
"""The shape that the image shows (`draw`), the range of prices, and the kinds of products of each category."""
BRANDS = ("Aster", "Borealis", "Cobalt", "Dunes", "Elmwood", "Fjord", "Granite", "Harbor", "Iris", "Juniper")
QUALITIES = ("compact", "classic", "lightweight", "sturdy", "elegant", "portable", "premium", "everyday")
COUNTRIES = ("US", "DE", "JP", "GB", "IN", "CA", "FR", "BR")
TYPES, SHARES = ("view", "add_to_cart", "purchase"), (0.55, 0.15, 0.3)
"""Types of interactions and their fractions. Three quarters of the purchases have a rating."""
RATED = 0.75
STARS = (0.05, 0.05, 0.1, 0.22, 0.58)
"""Fractions of 1 to 5 stars, which are mostly high, as in published reviews."""
LIKED = 0.8
"""Fraction of a user's interactions with the preferred categories."""
TAIL = 0.8
"""Exponent of the popularity of products by their rank within a category."""
ROUNDS = 20
"""Times that a repeated pair of user and item is drawn again, before it is drawn among the user's other items."""
START, END = (np.datetime64(day, "us").astype(np.int64) for day in ("2022-01-01", "2024-01-01"))


@dataclass
class Shop:
    """A generated shop.

    Attributes:
        dataset: Its customers, products and interactions.
        shapes: (items,) Shape of each product's image, and style of its brand.
        seed: Seed of the images.
    """

    dataset: Dataset
    shapes: list[tuple[str, str]]
    seed: int

    def write(
        self, path: str | Path, kind: str = "parquet", images: bool = False, painter: Painter | None = None
    ) -> None:
        """Write the data, and the images of the products, as one unit.

        Args:
            path: A folder for Parquet, which receives users.parquet, items.parquet and interactions.parquet; a file for
                JSON. Images go into `images/` in the folder.
            kind: "parquet" or "json".
            images: Whether to draw the images.
            painter: Paints the images by a diffusion model; by default they show shapes.

        Raises:
            OutputError: If the files cannot be written.
        """
        path, items = Path(path), self.dataset.items
        if images:
            views = [f"images/{name}.png" for name in items.column("item_id").to_pylist()]
            items = items.append_column("image.photo", pa.array(views))
        if is_stream(path) and kind == "json":
            if images:
                refuse_stream(path)
            write_json(self.dataset, path)
            return
        tables = {"users": self.dataset.users, "items": items, "interactions": self.dataset.interactions}
        folder = path if kind == "parquet" else path.parent
        with atomic_files(folder, "data" if kind == "parquet" else path.name) as new:
            if images:
                self._draw(new / "images", painter)
            if kind == "parquet":
                for name, table in tables.items():
                    pq.write_table(table, new / f"{name}.parquet")
            else:
                write_json(Dataset(**tables), new / path.name)

    def _draw(self, folder: Path, painter: Painter | None) -> None:
        """Draw one image of each product, the same bytes for the same seed."""
        folder.mkdir()
        names = ("item_id", "text.title", "categorical.category")
        products = zip(*(self.dataset.items.column(name).to_pylist() for name in names), self.shapes, strict=True)
        with progress_bar("drawing images", len(self.shapes)) as bar:
            for number, (name, title, category, (shape, style)) in enumerate(products):
                rng = np.random.default_rng([self.seed, 5, number])
                if painter is None:
                    image = draw_item(shape, style, rng)
                else:
                    image = painter.paint(title, category, int(rng.integers(2**31)))
                image.save(folder / f"{name}.png", optimize=True)
                bar.advance(1)


def generate_shop(users: int, items: int, interactions: int, seed: int = 0) -> Shop:
    """Make a shop with exactly these numbers of users, items and interactions.

    No pair of user and item occurs twice. Every user has at least one interaction if there are as many as users.

    Args:
        users: Number of users.
        items: Number of items.
        interactions: Number of interactions.
        seed: Seed of all draws.

    Raises:
        InputError: If there are fewer pairs of users and items than interactions.
    """
    if interactions > users * items:
        what = f"{users:,} users and {items:,} items have {users * items:,} pairs, each of which occurs at most once."
        raise InputError(
            Fault("--n_interactions", what, "Request fewer interactions, or more users or items.", "option")
        )
    rng = np.random.default_rng([seed, 11])
    category, rank = _catalogue(items, rng)
    item_table, price, brand = _item_table(category, rng)
    tastes = rng.dirichlet(np.full(len(CATEGORIES), 0.2), users)  # (users, categories), mostly one to three of them
    user_table = _user_table(users, tastes, rng)
    each = allocate(rng.lognormal(0, 1, users), interactions, items)
    owners = np.repeat(np.arange(users), each)
    chosen = _choose(owners, tastes, category, rank, rng)
    table = _interactions(owners, chosen, user_table, item_table, price, rng)
    names = list(CATEGORIES)
    shapes = [
        (CATEGORIES[names[one]][0], STYLES[mark % len(STYLES)]) for one, mark in zip(category, brand, strict=True)
    ]
    return Shop(Dataset(user_table, item_table, table), shapes, seed)


def allocate(weights: np.ndarray, total: int, most: int) -> np.ndarray:
    """Divide a number into whole parts, as proportional to weights as the bounds allow.

    Args:
        weights: (parts,) Positive weights.
        total: The number, at most `parts * most`.
        most: The largest part. The smallest is 1 if `total` is at least the number of parts, else 0.

    Returns:
        (parts,) int64, whose sum is `total`.
    """
    least = int(total >= len(weights))
    low, high = 0.0, (total + 1) / weights.min()
    for _ in range(200):  # bisection for the factor whose bounded parts have the sum
        factor = (low + high) / 2
        if np.clip(factor * weights, least, most).sum() < total:
            low = factor
        else:
            high = factor
    wanted = np.clip(high * weights, least, most)
    parts = np.floor(wanted).astype(np.int64)
    missing = total - int(parts.sum())
    order = np.argsort(parts - wanted, kind="stable")  # the largest remainder first
    room = order[parts[order] < most] if missing > 0 else order[parts[order] > least]
    parts[room[: abs(missing)]] += np.sign(missing)
    return parts


def _catalogue(items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (items,) the category of each item, and (items,) its rank by popularity within the category, from 0."""
    category = rng.permutation(np.arange(items) % len(CATEGORIES))
    rank = np.empty(items, np.int64)
    for one in range(len(CATEGORIES)):
        own = np.flatnonzero(category == one)
        rank[own] = rng.permutation(len(own))
    return category, rank


def _item_table(category: np.ndarray, rng: np.random.Generator) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Return the items' records, (items,) the place of the price in the category's range, and (items,) the brand."""
    count, names = len(category), list(CATEGORIES)
    kinds = np.array([kinds for _, _, kinds in CATEGORIES.values()])  # (categories, kinds)
    low, high = np.array([prices for _, prices, _ in CATEGORIES.values()], float).T
    kind, brand = rng.integers(0, kinds.shape[1], count), rng.integers(0, len(BRANDS), count)
    quality = rng.integers(0, len(QUALITIES), (count, 2))
    place = rng.beta(1.5, 4, count)  # most products are cheap for their category
    price = np.round(low[category] + place * (high - low)[category], 2)
    product = kinds[category, kind]
    first, second = np.array(QUALITIES)[quality.T]
    marks = np.array(BRANDS)[brand]
    title = _joined(marks, " ", np.char.capitalize(first), " ", product)
    about = _joined("A ", first, " and ", second, " ", product, " by ", marks, ", in ", np.array(names)[category], ".")
    released = START - rng.integers(0, 5 * 365, count) * 86_400_000_000
    table = pa.table(
        {
            "item_id": _ids("B", count),
            "categorical.category": np.array(names)[category],
            "categorical.brand": marks,
            "continuous.price": price,
            "text.title": title,
            "text.description": about,
            "temporal.released": pa.ListArray.from_arrays(
                pa.array(np.arange(count + 1, dtype=np.int32)), pa.array(released).cast(pa.timestamp("us")).cast(TIME)
            ),
        }
    )
    return table, place, brand


def _ids(letter: str, count: int) -> pa.Array:
    """Return (count,) ids: the letter and the number with nine digits."""
    return _joined(letter, pc.utf8_lpad(pa.array(np.arange(count)).cast(pa.string()), 9, "0"))


def _joined(*parts: str | np.ndarray | pa.Array) -> pa.Array:
    """Return the texts that are composed of columns and of texts that are the same in each row."""
    return pc.binary_join_element_wise(*(pa.array(one) if isinstance(one, np.ndarray) else one for one in parts), "")


def _user_table(users: int, tastes: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Return the users' records; an interest is a category that a fifth of the taste is for."""
    names = list(CATEGORIES)
    rows, places = np.nonzero(tastes >= 0.2)
    offsets = np.searchsorted(rows, np.arange(users + 1)).astype(np.int32)
    interests = pa.array(names).take(pa.array(places))
    return pa.table(
        {
            "user_id": _ids("A", users),
            "categorical.country": rng.choice(COUNTRIES, users, p=[0.4, 0.12, 0.1, 0.1, 0.1, 0.06, 0.06, 0.06]),
            "categorical.prime": np.where(rng.random(users) < 0.45, "yes", "no"),
            "categorical.interests": pa.ListArray.from_arrays(pa.array(offsets), interests),
            "continuous.age": np.round(np.clip(rng.normal(42, 14, users), 18, 90)),
        }
    )


def _choose(
    owners: np.ndarray, tastes: np.ndarray, category: np.ndarray, rank: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Choose an item for each interaction, so that no user has an item twice.

    Args:
        owners: (interactions,) user rows in ascending order.
        tastes: (users, categories) distribution of each user over the categories.
        category: (items,) category of each item.
        rank: (items,) rank by popularity within the category.
        rng: Source of the draws.

    Returns:
        (interactions,) item rows.
    """
    items = len(category)
    ordered = np.lexsort((rank, category))  # the items of a category in the order of their popularity
    sizes = np.bincount(category, minlength=len(CATEGORIES))
    starts = np.cumsum(sizes) - sizes
    steps = np.cumsum(np.where(sizes > 0, tastes, 0), 1)
    steps[steps[:, -1] == 0] = np.cumsum(sizes > 0)  # tastes for categories without items: any other

    def draw(users: np.ndarray) -> np.ndarray:
        drawn = (rng.random(len(users))[:, None] * steps[users, -1:] >= steps[users]).sum(1)
        size = sizes[drawn]
        # By inversion: the density rank ** -TAIL on (0, size) has the distribution (rank / size) ** (1 - TAIL).
        place = np.minimum((rng.random(len(users)) ** (1 / (1 - TAIL)) * size).astype(np.int64), size - 1)
        found = ordered[starts[drawn] + place]
        return np.where(rng.random(len(users)) < LIKED, found, rng.integers(0, items, len(users)))

    chosen = draw(owners)
    repeated = _repeated(owners, chosen, items)
    for _ in range(ROUNDS):
        if not len(repeated):
            return chosen
        chosen[repeated] = draw(owners[repeated])
        repeated = _repeated(owners, chosen, items)
    for user in np.unique(owners[repeated]):
        begin, end = np.searchsorted(owners, [user, user + 1])
        again = repeated[(repeated >= begin) & (repeated < end)]
        others = np.setdiff1d(np.arange(items), chosen[begin:end])
        chosen[again] = rng.choice(others, len(again), replace=False)
    return chosen


def _repeated(owners: np.ndarray, chosen: np.ndarray, items: int) -> np.ndarray:
    """Return the places of all pairs of user and item but the first of each, in ascending order."""
    _, first = np.unique(owners * items + chosen, return_index=True)
    again = np.ones(len(owners), bool)
    again[first] = False
    return np.flatnonzero(again)


def _interactions(
    owners: np.ndarray,
    chosen: np.ndarray,
    users: pa.Table,
    items: pa.Table,
    price: np.ndarray,
    rng: np.random.Generator,
) -> pa.Table:
    """Return the interactions, with times, types, and ratings of purchases; expensive items are rated a bit lower."""
    count = len(owners)
    times = START + np.sort(rng.integers(0, END - START, count)) // 1_000_000 * 1_000_000
    order = rng.permutation(count)  # the file is in the order of time, and each user's items in any order
    owners, chosen = owners[order], chosen[order]
    kinds = rng.choice(len(TYPES), count, p=SHARES)
    stars = np.searchsorted(np.cumsum(STARS), rng.random(count) * (1 - 0.15 * price[chosen]), side="right") + 1.0
    rated = (kinds == TYPES.index("purchase")) & (rng.random(count) < RATED)
    return pa.table(
        {
            "user_id": users.column("user_id").combine_chunks().take(pa.array(owners)),
            "item_id": items.column("item_id").combine_chunks().take(pa.array(chosen)),
            "interaction_type": pa.array(TYPES).take(pa.array(kinds)),
            "timestamp": pa.array(times).cast(pa.timestamp("us")).cast(TIME),
            "rating": pc.if_else(pa.array(rated), pa.array(np.minimum(stars, 5)), pa.scalar(None, pa.float64())),
        }
    )
