"""Draws the synthetic items: the shape shows the category, colours and pattern show the style."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from anyrec.core.errors import Fault, OutputError
from anyrec.core.outputs import is_stream
from anyrec.data.synthetic.world import CATEGORIES, STYLES, World

SIZE, SCALE = 64, 4
PALETTES = {
    "neon": ("#12002b", "#ff2bd6", "#19f5c1"),
    "pastel": ("#fdf1f5", "#a8d5e5", "#f7c6a3"),
    "earthy": ("#e9dcc3", "#7a4a23", "#5c7a3a"),
    "monochrome": ("#ffffff", "#1c1c1c", "#9a9a9a"),
}


def draw_items(world: World, folder: Path, pixels: int = SIZE) -> None:
    """Write `<n>_front.png` and `<n>_back.png` of every item, the same bytes for the same seed and size."""
    folder.mkdir(parents=True, exist_ok=True)
    categories = list(CATEGORIES)
    for number, (category, style) in enumerate(zip(world.traits["category"], world.traits["style"], strict=True)):
        rng = np.random.default_rng([world.seed, 3, number])
        for view in ("front", "back"):
            image = draw_item(categories[category], STYLES[style], rng, view == "back", pixels)
            image.save(folder / f"{number}_{view}.png", optimize=True)


def refuse_stream(path: Path) -> None:
    """Raise OutputError if an output is a device or a pipe, which cannot have images in the same folder."""
    if is_stream(path):
        what = "a device or a pipe cannot have images in the same folder."
        raise OutputError(Fault(str(path), what, "Name a file, or use --no-images.", "output"))


def draw_item(
    category: str, style: str, rng: np.random.Generator, plain: bool = False, pixels: int = SIZE
) -> Image.Image:
    """Draw an item as a square palette image.

    Args:
        category: Decides the shape.
        style: Decides the colours and the pattern.
        rng: Source of small differences.
        plain: Leave out the pattern, as on the back.
        pixels: Side of the image.
    """
    ground, shape, accent = PALETTES[style]
    side = pixels * SCALE
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    if not plain:
        _pattern(draw, style, accent, side, rng)
    centre = side / 2 + rng.uniform(-side / 14, side / 14, 2)
    _shape(draw, category, centre, side * rng.uniform(0.28, 0.36), shape, accent)
    return image.resize((pixels, pixels), Image.Resampling.LANCZOS).quantize(16, dither=Image.Dither.NONE)


def _pattern(draw: ImageDraw.ImageDraw, style: str, colour: str, side: int, rng: np.random.Generator) -> None:
    step = side // 8
    shift = int(rng.integers(0, step))
    if style == "neon":
        for place in range(-side, side, step * 2):
            draw.line([(place + shift, side), (place + side + shift, 0)], fill=colour, width=step // 4)
    elif style == "pastel":
        for x in range(-step, side + step, step * 2):
            for y in range(-step, side + step, step * 2):
                draw.ellipse([x + shift, y + shift, x + shift + step // 2, y + shift + step // 2], fill=colour)
    elif style == "earthy":
        for y in range(-step, side + step, step * 2):
            points = [(x, y + shift + step / 3 * math.sin(x / step)) for x in range(0, side + 1, 8)]
            draw.line(points, fill=colour, width=step // 3)
    else:
        for place in range(shift - step, side + step, step * 2):
            draw.line([(place, 0), (place, side)], fill=colour, width=step // 8)
            draw.line([(0, place), (side, place)], fill=colour, width=step // 8)


def _shape(draw: ImageDraw.ImageDraw, category: str, centre: np.ndarray, size: float, fill: str, edge: str) -> None:
    x, y = centre
    width = max(2, round(size / 12))
    if category == "health":
        for box in ((x - size / 3, y - size, x + size / 3, y + size), (x - size, y - size / 3, x + size, y + size / 3)):
            draw.rectangle(box, fill=fill)
    elif category == "books":
        draw.rectangle((x - size * 0.75, y - size, x + size * 0.75, y + size), fill=fill, outline=edge, width=width)
        draw.line([(x - size * 0.45, y - size), (x - size * 0.45, y + size)], fill=edge, width=width)
    elif category == "kitchen":
        draw.ellipse((x - size, y - size * 0.8, x + size * 0.6, y + size * 0.8), fill=fill, outline=edge, width=width)
        draw.rectangle((x + size * 0.5, y - size / 8, x + size * 1.4, y + size / 8), fill=fill)
    elif category == "music":
        draw.ellipse((x - size, y - size, x + size, y + size), fill=fill)
        draw.ellipse((x - size / 3, y - size / 3, x + size / 3, y + size / 3), fill=edge)
    else:
        corners = 3 if category == "tools" else 6
        points = [
            (
                x + size * math.cos(2 * math.pi * k / corners - math.pi / 2),
                y + size * math.sin(2 * math.pi * k / corners - math.pi / 2),
            )
            for k in range(corners)
        ]
        draw.polygon(points, fill=fill, outline=edge, width=width)
