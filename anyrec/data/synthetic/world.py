"""The world behind synthetic data: the traits of items, the tastes of people, and which preferences are planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PREFERENCES = ("occupation", "location", "age", "bio", "price", "history")
CATEGORIES = {
    "health": ("nurse", "doctor"),
    "tools": ("carpenter", "mechanic"),
    "books": ("teacher", "librarian"),
    "kitchen": ("chef", "baker"),
    "music": ("musician", "dancer"),
    "tech": ("engineer", "analyst"),
}
NOUNS = {"health": "kit", "tools": "set", "books": "volume", "kitchen": "pan", "music": "record", "tech": "gadget"}
WEATHERS = {
    "rain": ("Bergen", "Seattle", "Glasgow"),
    "sun": ("Athens", "Tucson", "Perth"),
    "snow": ("Tromso", "Sapporo", "Quebec"),
    "wind": ("Wellington", "Chicago", "Punta Arenas"),
}
STYLES = ("neon", "pastel", "earthy", "monochrome")
AGES = ((18, 30), (30, 45), (45, 60), (60, 80))
"""Half-open age bands; each prefers the style at its position."""
THEMES = {
    "ocean": ("surfing at dawn", "sailing small boats", "listening to the tide", "coral", "lagoon", "harbour"),
    "space": ("watching the stars", "building rockets", "waiting for eclipses", "nebula", "orbit", "comet"),
    "forest": ("hiking under trees", "looking for mushrooms", "sleeping in tents", "moss", "cedar", "fern"),
    "city": ("night walks downtown", "rooftop concerts", "riding the metro", "neon sign", "boulevard", "skyline"),
    "desert": ("driving dusty roads", "climbing dunes", "collecting cactuses", "sandstone", "oasis", "mesa"),
}
"""Three hobbies of users and three words of items for each theme."""
SERIES = 8
"""The number of series of items."""


@dataclass
class World:
    """Items with their hidden traits, and the planted preferences.

    Attributes:
        seed: Seed of all draws.
        preferences: The preferences that are planted.
        traits: (items,) each: category, weather, style, theme and series as numbers, price as a fraction of its range.
    """

    seed: int
    preferences: tuple[str, ...]
    traits: dict[str, np.ndarray]

    def affinity(self, people: dict[str, np.ndarray], rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return (people, items) float32, how many planted preferences an item meets, the price by closeness."""
        total = np.zeros((len(people["category"][rows]), len(self.traits["category"])), np.float32)
        for name, trait in (
            ("occupation", "category"),
            ("location", "weather"),
            ("age", "style"),
            ("bio", "theme"),
            ("history", "series"),
        ):
            if name in self.preferences:
                total += people[trait][rows][:, None] == self.traits[trait][None, :]
        if "price" in self.preferences:
            total += np.maximum(0, 1 - 4 * np.abs(people["price"][rows][:, None] - self.traits["price"][None, :]))
        return total


def trait_name(trait: str, value: int) -> str:
    """Return the name of a number in `traits` or in people's tastes."""
    names = {"category": list(CATEGORIES), "weather": list(WEATHERS), "style": list(STYLES), "theme": list(THEMES)}
    return names[trait][value]


def item_ids(count: int) -> list[str]:
    """Return the ids of the first `count` items."""
    return [f"item{n}" for n in range(count)]


def draw_traits(items: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw (items,) traits, with equally many items of each kind."""

    def even(kinds: int) -> np.ndarray:
        return rng.permutation(np.arange(items) % kinds)

    return {
        "category": even(len(CATEGORIES)),
        "weather": even(len(WEATHERS)),
        "style": even(len(STYLES)),
        "theme": even(len(THEMES)),
        "series": even(SERIES),
        "price": rng.random(items),
    }


def draw_people(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw (people,) tastes, uniformly."""
    return {
        "category": rng.integers(0, len(CATEGORIES), count),
        "weather": rng.integers(0, len(WEATHERS), count),
        "style": rng.integers(0, len(STYLES), count),
        "theme": rng.integers(0, len(THEMES), count),
        "series": rng.integers(0, SERIES, count),
        "price": rng.random(count),
    }
