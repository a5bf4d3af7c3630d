"""Draws search results as one image: posters with titles below. It needs the folder of the model's images.

    python scripts/contact_sheet.py --model_path MODEL --text "space adventure with robots" --output sheets/text.png
    python scripts/contact_sheet.py --model_path MODEL --image posters/260.jpg --output sheets/poster.png

It also prints the titles as a Markdown table. Git ignores `sheets/`, because the posters must not be redistributed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from anyrec.data.images import ImageFault, open_image
from anyrec.data.item_facts import category_feature, title_of
from anyrec.recommender import Recommender

WIDTH, HEIGHT, TEXT, GAP, COLUMNS = 150, 215, 50, 12, 5
COLOURS = 128
"""Size of the PNG's palette; it keeps a sheet of ten posters below 300 KB."""


def main() -> None:
    """Search, write the image and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, required=True)
    parser.add_argument("--text")
    parser.add_argument("--image")
    parser.add_argument("--user")
    parser.add_argument("--space", default="auto")
    parser.add_argument("--top_k", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    recommender = Recommender.load(arguments.model_path)
    user = None if arguments.user is None else recommender.dataset.ids("user").type.to_pandas_dtype()(arguments.user)
    found = recommender.search(
        text=arguments.text, image=arguments.image, user=user, k=arguments.top_k, space=arguments.space
    )
    rows = recommender.model.rows_of("item", found.column("item_id"))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet(recommender, rows).quantize(COLOURS).save(arguments.output, optimize=True)
    print(table(recommender, rows, found.column("score").to_pylist()))


def sheet(recommender: Recommender, rows: np.ndarray) -> Image.Image:
    """Return an image of the items in `rows: (items,)`, best first."""
    lines = -(-len(rows) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, lines * (HEIGHT + TEXT + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for n, row in enumerate(rows):
        left, top = GAP + n % COLUMNS * (WIDTH + GAP), GAP + n // COLUMNS * (HEIGHT + TEXT + GAP)
        picture.paste(ImageOps.fit(poster(recommender, int(row)), (WIDTH, HEIGHT)), (left, top))
        words = wrapped(draw, font, f"{n + 1}. {title_of(recommender.dataset, int(row))}")
        draw.multiline_text((left, top + HEIGHT + 3), words, "black", font, spacing=2)
    return picture


def poster(recommender: Recommender, row: int) -> Image.Image:
    """Return the item's first image, or a grey one if it has none."""
    for name in recommender.dataset.features("item"):
        value = recommender.dataset.items.column(name)[row].as_py() if name.startswith("image.") else None
        file = value[0] if isinstance(value, list) and value else value
        try:
            if isinstance(file, str):
                return open_image(file, recommender.model.context.root, side=HEIGHT)
        except ImageFault:
            continue
    return Image.new("RGB", (WIDTH, HEIGHT), "lightgrey")


def wrapped(draw: ImageDraw.ImageDraw, font: Any, text: str) -> str:
    """Wrap a text to the width of a poster; at most three lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= WIDTH or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines[:3])


def table(recommender: Recommender, rows: np.ndarray, scores: list[float]) -> str:
    """Return rank, title, categories and score of the items as a Markdown table."""
    items = recommender.dataset.items
    category = category_feature(recommender.dataset, recommender.config.evaluation.category)
    lines = ["| | title | kind | score |", "|---|---|---|---|"]
    for n, (row, score) in enumerate(zip(rows.tolist(), scores, strict=True), 1):
        value = None if category is None else items.column(category)[row].as_py()
        kind = ", ".join(value) if isinstance(value, list) else str(value or "")
        lines.append(f"| {n} | {title_of(recommender.dataset, row)} | {kind} | {score:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
