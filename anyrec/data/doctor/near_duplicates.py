"""Items with the same text or image, or nearly the same."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from anyrec.core.config import Config
from anyrec.core.unit_vectors import unit_rows
from anyrec.data.dataset import Dataset
from anyrec.data.doctor.table_checks import show_id
from anyrec.data.findings import Finding, count
from anyrec.data.images import ImageFault, find_file, open_image
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.summary import is_plain

MOST_TEXTS, MOST_IMAGES = 20_000, 5_000
"""The most items and image files that are compared: the work grows with the square of their number."""
SHORTEST_TEXT, LONGEST_TEXT = 40, 1_000
"""Characters. A sequel's number is too large a part of shorter texts; longer texts are compared by their beginning."""
THUMBNAIL = 128
"""The side in pixels that an image may be reduced to before the thumbnail of 9 x 8 is made."""
SIMILAR_TEXTS = 0.95
"""The least cosine of the 4-grams of texts that are nearly equal."""
BUCKETS = 512
"""Dimensions that character 4-grams are hashed into; unrelated texts have a cosine of about 0.05."""
ROWS_AT_A_TIME = 2_000


def check_texts(dataset: Dataset) -> list[Finding]:
    """Report items whose texts are equal or similar.

    All texts of an item are compared together; case, spaces and punctuation do not count.
    """
    texts = _item_texts(dataset)
    if texts is None:
        return []
    filled = np.flatnonzero(pc.greater(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False))
    codes = texts.take(pa.array(filled)).dictionary_encode().indices.to_numpy()
    found = []
    equal = np.bincount(codes)[codes] > 1
    if equal.any():
        exact = _with_features(dataset, filled, codes)
        same = equal if exact is None else np.bincount(exact)[exact] > 1
        text = f"{count(int(equal.sum()), 'item')} have the same text as another item"
        text += f", {same.sum():,} of them also the same categories and numbers" if exact is not None else ""
        known, one = (codes, equal) if exact is None or not same.any() else (exact, same)
        first, second = filled[known == known[one.argmax()]][:2]
        advice = "If they are one thing listed twice, give it one id."
        level = "warning" if same.any() else "note"
        found.append(Finding(level, "equal texts", f"{text}, as {_pair(dataset, first, second)}.", advice))
    _, once = np.unique(codes, return_index=True)
    rows = filled[np.sort(once)]
    long = pc.greater_equal(pc.utf8_length(texts), SHORTEST_TEXT).to_numpy(zero_copy_only=False)
    rows = rows[long[rows]]
    if len(rows) > MOST_TEXTS:
        text = f"Only the first {MOST_TEXTS:,} of {len(rows):,} different texts were compared with each other."
        found.append(Finding("note", "texts in part", text, "Some pairs of similar texts may not have been found."))
    vectors = _four_grams(texts.take(pa.array(rows[:MOST_TEXTS])))
    near, pair = _similar_rows([vectors], [SIMILAR_TEXTS], np.arange(len(vectors)))
    if near.any():
        where = _pair(dataset, rows[pair[0]], rows[pair[1]])
        text = f"{count(int(near.sum()), 'item')} have a text that is nearly another item's, as {where}."
        advice = "See whether they are one thing listed twice, or one has got the other's text."
        found.append(Finding("note", "similar texts", text, advice))
    return found


def _with_features(dataset: Dataset, rows: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
    """Refine codes of equal texts, so that items with equal codes also have the same categories and numbers.

    Args:
        dataset: The data.
        rows: (rows,) Items.
        codes: (rows,) Equal for equal texts.

    Returns:
        (rows,) codes; None if the items have no such features.
    """
    found = None
    for name in dataset.features("item"):
        column = dataset.items.column(name).combine_chunks().take(pa.array(rows))
        if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            column = _joined(column)
        if name.startswith(("categorical.", "continuous.")) and is_plain(column.type):
            values = column.dictionary_encode("encode").indices.to_numpy()
            found = codes if found is None else found
            found = np.unique(found * np.int64(len(rows) + 1) + values, return_inverse=True)[1]
    return found


def _joined(column: pa.Array) -> pa.Array:
    """Return (rows,) each list of texts as one text. An absent text counts as empty."""
    return pc.binary_join(pa.ListArray.from_arrays(column.offsets, pc.fill_null(column.values, "")), "\n")


def _item_texts(dataset: Dataset) -> pa.Array | None:
    """Return (items,) the text features of each item as one text, letters and digits only; None without any."""
    columns = []
    for name in dataset.features("item"):
        column = dataset.items.column(name).combine_chunks()
        if name.startswith("text."):
            columns.append(_joined(column) if pa.types.is_list(column.type) else column)
    if not columns:
        return None
    joined = pc.binary_join_element_wise(*columns, " ", null_handling="replace", null_replacement="")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(joined), r"[^\pL\pM\pN]+", " "))


def _four_grams(texts: pa.Array) -> np.ndarray:
    """Hash runs of four bytes of each text, with a sign that lets collisions cancel.

    Returns:
        (texts, BUCKETS) float32 of length 1.
    """
    texts = pc.utf8_slice_codeunits(texts, 0, LONGEST_TEXT)
    vectors = np.zeros((len(texts), BUCKETS), np.float32)
    for start in range(0, len(texts), ROWS_AT_A_TIME):
        block = texts[start : start + ROWS_AT_A_TIME]
        whole = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(block)], pa.int32()), block), "")
        data = np.frombuffer(whole[0].as_buffer(), np.uint8).astype(np.uint32)
        owner = np.repeat(np.arange(len(block)), pc.binary_length(block).to_numpy())
        inside = owner[:-3] == owner[3:]
        gram = (data[:-3] | data[1:-2] << 8 | data[2:-1] << 16 | data[3:] << 24)[inside] * np.uint32(2654435761)
        sign = (gram >> 22 & 1) * 2.0 - 1.0
        place = owner[:-3][inside] * BUCKETS + (gram >> 23)
        vectors[start : start + len(block)] = np.bincount(place, sign, len(block) * BUCKETS).reshape(len(block), -1)
    return unit_rows(vectors)


def _similar_rows(
    spaces: list[np.ndarray], least: list[float], owners: np.ndarray
) -> tuple[np.ndarray, tuple[int, int]]:
    """Find rows whose dot product with another owner's row reaches a bound in every space.

    Args:
        spaces: (rows, dim) Vectors, one array for each space.
        least: The bound in each space.
        owners: (rows,) Rows of one owner are not compared with each other.

    Returns:
        (rows,) bool, the rows found; and the first pair.
    """
    rows = len(spaces[0])
    near, pair = np.zeros(rows, bool), (0, 0)
    for start in range(0, rows, ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, rows)
        close = owners[start:stop, None] != owners[None, start:]
        for vectors, bound in zip(spaces, least, strict=True):
            close &= vectors[start:stop] @ vectors[start:].T >= bound
        if close.any() and not near.any():
            one, other = np.unravel_index(close.argmax(), close.shape)
            pair = (start + int(one), start + int(other))
        near[start:stop] |= close.any(1)
        near[start:] |= close.any(0)
    return near, pair


def check_images(dataset: Dataset, config: Config) -> list[Finding]:
    """Report items with the same image, byte by byte or as a thumbnail. Unreadable files are skipped."""
    owners, files, names = _image_uses(dataset)
    found = []
    if len(names) > MOST_IMAGES:
        text = f"Only the first {MOST_IMAGES:,} of {len(names):,} image files of items were compared."
        found.append(Finding("note", "images in part", text, "Some pairs of equal images may not have been found."))
    root = Path(config.data.image_root) if config.data.image_root else dataset.root
    outside = config.data.allow_outside_root
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda name: _picture(name, root, outside), names[:MOST_IMAGES].to_pylist()))
    contents = {picture[0]: picture[1] for picture in pictures if picture is not None}
    if not contents:
        return found
    place = {digest: number for number, digest in enumerate(contents)}
    content = np.array([-1 if picture is None else place[picture[0]] for picture in pictures])
    owners, files = owners[files < MOST_IMAGES], files[files < MOST_IMAGES]
    readable = content[files] >= 0
    # An item may use a file twice, under one name or two: each item counts once for each content.
    uses = np.unique(np.stack([content[files], owners], 1)[readable], axis=0)
    each = np.bincount(uses[:, 0])
    shared = np.unique(uses[each[uses[:, 0]] > 1, 1])
    if len(shared):
        most = uses[uses[:, 0] == each.argmax(), 1]
        text = f"{count(len(shared), 'item')} have the same image file as another item, as {_pair(dataset, *most[:2])}"
        text += f" (one file is on {len(most):,} items)." if len(most) > 2 else "."
        advice = "If they are one thing, give it one id; if the image stands in for a missing one, leave it out."
        found.append(Finding("warning", "equal images", text, advice))
    first_owner = uses[np.searchsorted(uses[:, 0], np.arange(len(contents))), 1]
    return found + _similar_images(dataset, np.stack(list(contents.values())), first_owner)


def _similar_images(dataset: Dataset, thumbnails: np.ndarray, owners: np.ndarray) -> list[Finding]:
    """Report items whose images look like another item's.

    Images of nearly one colour are left out, since all of them look the same.

    Args:
        dataset: The data.
        thumbnails: (files, 8, 9, 3) float32.
        owners: (files,) The item of each file.
    """
    rich = thumbnails.std((1, 2, 3)) >= 8
    thumbnails, owners = thumbnails[rich], owners[rich]
    steps = np.diff(thumbnails.mean(3), axis=2).reshape(len(owners), 64)
    colours = thumbnails.reshape(len(owners), 216)
    colours = unit_rows(colours - colours.mean(1, keepdims=True))
    # Of the 64 signs of a difference hash, two may differ: their product is then 60.
    near, pair = _similar_rows([np.where(steps > 0, 1.0, -1.0).astype(np.float32), colours], [60, 0.995], owners)
    if not near.any():
        return []
    where = _pair(dataset, owners[pair[0]], owners[pair[1]])
    text = f"{count(len(np.unique(owners[near])), 'item')} have an image that looks like another item's, as {where}."
    return [Finding("note", "similar images", text, "See whether they are one thing listed twice.")]


def _image_uses(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """Return the uses of image files by items.

    Returns:
        (uses,) item rows, (uses,) positions in the names, and the distinct names.
    """
    owners, names = [np.empty(0, np.int64)], [pa.array([], pa.string())]
    for feature in dataset.features("item"):
        if feature.startswith("image."):
            flat, parents = flat_with_nulls(dataset.items.column(feature).combine_chunks())
            given = flat.is_valid()
            owners.append(parents[given.to_numpy(zero_copy_only=False)])
            names.append(flat.filter(given).cast(pa.string()))
    encoded = pa.concat_arrays(names).dictionary_encode()
    return np.concatenate(owners), encoded.indices.to_numpy(), encoded.dictionary


def _picture(name: str, root: Path, allow_outside_root: bool) -> tuple[bytes, np.ndarray] | None:
    """Return a file's sha256 and its thumbnail, (8, 9, 3) float32; None for a file that cannot be read."""
    try:
        image = open_image(name, root, allow_outside_root=allow_outside_root, side=THUMBNAIL)
        with open(find_file(name, root, allow_outside_root), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except (ImageFault, OSError):
        return None
    return digest, np.asarray(image.resize((9, 8), Image.Resampling.BOX), np.float32)


def _pair(dataset: Dataset, one: int, other: int) -> str:
    """Return two items by their ids."""
    return f"{show_id(dataset, 'item', one)} and {show_id(dataset, 'item', other)}"
