"""Opens image files of unknown origin: few formats, inside the image root, bounded in time and memory, upright."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from anyrec.core.config import DataConfig
from anyrec.core.context import Context
from anyrec.core.errors import DataError, Fault
from anyrec.data.dataset import Dataset
from anyrec.data.ids import SIDES
from anyrec.data.url_fetch import FetchError, fetch

Made = TypeVar("Made")
T = Image.Transpose
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are opened. Pillow reads more, some by starting other programs (Ghostscript for PostScript)."""
MAX_PIXELS = 64_000_000
"""The most pixels of an image."""
MAX_BYTES = 32_000_000
"""The most bytes of an image that is fetched from a URL."""
MAX_FILE_BYTES = 512_000_000
"""The most bytes of a file: `MAX_PIXELS` without compression at 16 bits a channel are 384 MB."""
FETCH_SECONDS = 20
SIDE = 512
"""The side in pixels that callers resample to by default; a larger image is reduced to about twice this side."""
MARGIN = 2
"""A reduced image has at least this many times the needed side, so that resampling to that side loses little."""
STRIP = 1 << 20
"""Pixels that are converted at a time: 4 MB as RGBA, 8 MB as float64."""
LARGE = 16_000_000
"""Images of more pixels are decoded one at a time in all threads: 64 million pixels as RGB take 256 MB in Pillow."""
IMAGES_AT_A_TIME = 256
"""Images of a block of `image_blocks`: 38 MB at a side of 224 pixels."""
TURNS = dict(
    enumerate(
        (T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_270, T.TRANSVERSE, T.ROTATE_90), 2
    )
)
"""The transposition that turns an image of each EXIF orientation upright."""
_large_one = Lock()
_SHOWN = 100
"""Characters of a name that a message shows."""


class ImageFault(Exception):
    """An image cannot be used. `kind` is a key of `KINDS`."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


KINDS = {
    "missing": ("missing", "Put the file there, or name the folder with --image_root."),
    "outside": (
        "outside the image root",
        "Name their folder with --image_root, or set data.allow_outside_root to true if you trust the data.",
    ),
    "corrupt": ("corrupt", "Replace the file."),
    "too large": ("too large", "Make it smaller."),
    "url": ("URLs, which are not allowed,", "Set data.allow_urls to true, or download it."),
}
"""Each kind of fault in the words of a note, and how to fix it."""


def open_image(
    name: str,
    root: Path,
    *,
    allow_urls: bool = False,
    allow_outside_root: bool = False,
    side: int = SIDE,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Open an image as RGB: upright, on white if it is transparent, the first frame of an animation.

    Args:
        name: A path relative to `root`, an absolute path within it, or a URL if `allow_urls`.
        root: The image root. Files outside it are refused unless `allow_outside_root`, also through links.
        allow_urls: Fetch images from http and https URLs.
        allow_outside_root: Open files outside the image root.
        side: The side in pixels that the caller will resample to. An image whose longer side is much more is reduced to
            no less than `MARGIN` times that, by averaging whole blocks of pixels.
        max_pixels: The most pixels. The image's header says how many there are, before anything is decoded.

    Raises:
        ImageFault: If the image cannot be used.
    """
    source = _source(name, root, allow_urls, allow_outside_root)
    try:
        with Image.open(source, formats=_formats()) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise ImageFault("too large", f"{image.width} x {image.height} pixels; {max_pixels:,} are allowed")
            with _large_one if pixels > LARGE else nullcontext():
                image.draft(None, (2 * MARGIN * side, 2 * MARGIN * side))  # JPEG alone: decoded at 1/2, 1/4 or 1/8
                image.load()
                turn = _orientation(image)
                return _upright(_reduced(image, max(1, int(max(image.size) / (MARGIN * side)))), turn)
    except ImageFault:
        raise
    except Image.DecompressionBombError:
        raise ImageFault("too large", "it would unpack to far more pixels than are allowed") from None
    except FileNotFoundError:
        raise ImageFault("missing", "there is no such file") from None
    except UnidentifiedImageError:
        raise ImageFault("corrupt", f"it is no {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise anything on damaged files: zlib.error, KeyError, MemoryError, ...
        raise ImageFault("corrupt", str(error) or "it cannot be decoded") from None


def find_file(name: str, root: Path, allow_outside_root: bool = False) -> Path:
    """Return the resolved path of a file that a record names, for any kind of feature.

    Args:
        name: A path relative to `root`, or an absolute one.
        root: The folder that the file must be in.
        allow_outside_root: Accept files elsewhere.

    Raises:
        ImageFault: If there is no such regular file, or it is outside `root`.
    """
    try:
        path = (root / name).resolve()
        if not allow_outside_root and not path.is_relative_to(root.resolve()):
            raise ImageFault("outside", "it is not within the image root")
        found = path.stat()
    except (OSError, ValueError, RuntimeError):  # no such file, a name too long, NUL, half a surrogate, a loop of links
        raise ImageFault("missing", "there is no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise ImageFault("missing", "it is not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise ImageFault("too large", f"{found.st_size:,} bytes; {MAX_FILE_BYTES:,} are allowed")
    return path


def load_images(
    names: Sequence[str], context: Context, make: Callable[[Image.Image], Made], side: int = SIDE
) -> tuple[list[Made], np.ndarray]:
    """Open images and make something of each; arguments and errors as for `image_blocks`.

    Returns:
        What `make` returned for the readable files, and (names,) bool, which files these are.
    """
    made, readable = [], [np.empty(0, bool)]
    for block, there in image_blocks(names, context, make, side):
        made += block
        readable.append(there)
    return made, np.concatenate(readable)


def image_blocks(
    names: Sequence[str], context: Context, make: Callable[[Image.Image], Made], side: int = SIDE
) -> Iterator[tuple[list[Made], np.ndarray]]:
    """Open images and make something of each, `IMAGES_AT_A_TIME`.

    Unreadable files are counted in `context.warnings` at the end, in one sentence for each kind of fault.

    Args:
        names: (names,) The images, as `open_image` takes them.
        context: The image root and the permissions.
        make: Called with each image.
        side: The side in pixels that `make` resamples to.

    Yields:
        What `make` returned for the readable files of a block of the names, and (block,) bool, which files these are.

    Raises:
        DataError: If there are unreadable files and `context.strict` is set.
    """
    failed: dict[str, list[tuple[str, str]]] = {}  # by kind: the name and the reason

    def load(name: str) -> Made | ImageFault:
        try:
            image = open_image(
                name,
                context.root,
                allow_urls=context.allow_urls,
                allow_outside_root=context.allow_outside_root,
                side=side,
            )
            return make(image)
        except ImageFault as fault:
            return fault

    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(names), IMAGES_AT_A_TIME):
            block = names[start : start + IMAGES_AT_A_TIME]
            with _quiet():
                results = list(pool.map(load, block))
            for name, result in zip(block, results, strict=True):
                if isinstance(result, ImageFault):
                    failed.setdefault(result.kind, []).append((name, str(result)))
            readable = np.array([not isinstance(result, ImageFault) for result in results], bool)
            yield [result for result in results if not isinstance(result, ImageFault)], readable
    if failed and context.strict:
        raise DataError(*_faults(failed, context.locate))
    for kind, files in failed.items():
        words, hint = KINDS[kind]
        advice = f" {hint}" if kind == "outside" else ""
        first, place = _short(files[0][0]), _short(context.locate(files[0][0]))
        context.warnings.append(
            f"{len(files)} of {len(names)} images are {words} and count as absent; the first: '{first}' "
            f"({files[0][1]}{'' if place == first else f'; {place}'}).{advice}"
        )


def check_images(dataset: Dataset, options: DataConfig) -> tuple[list[Fault], dict[str, int]]:
    """Open every image of a dataset.

    Returns:
        Faults of images that cannot be used, at most 20 of each kind, and the number of each kind.
    """
    root, failed = Path(options.image_root) if options.image_root else dataset.root, {}
    names = sorted(image_names(dataset))

    def check(name: str) -> ImageFault | None:
        try:
            open_image(name, root, allow_urls=options.allow_urls, allow_outside_root=options.allow_outside_root)
        except ImageFault as fault:
            return fault
        return None

    with _quiet(), ThreadPoolExecutor(4) as pool:
        for name, fault in zip(names, pool.map(check, names), strict=True):
            if fault is not None:
                failed.setdefault(fault.kind, []).append((name, str(fault)))
    return _faults(failed, partial(image_place, dataset))


def image_names(dataset: Dataset) -> set[str]:
    """Return every distinct image that the records name."""
    found: set[str] = set()
    for table in (dataset.users, dataset.items):
        for name in table.column_names:
            if name.startswith("image."):
                column = table.column(name).combine_chunks()
                flat = column.flatten() if pa.types.is_list(column.type) else column
                found.update(flat.drop_null().unique().to_pylist())
    return found


def image_place(dataset: Dataset, name: str) -> str:
    """Return the place of the first record that names an image; the name itself if there is none."""
    for side in SIDES:
        table = dataset.table(side)
        for column_name in table.column_names if side in dataset.origins else []:
            if column_name.startswith("image."):
                column = table.column(column_name).combine_chunks()
                is_list = pa.types.is_list(column.type)
                found = pc.index(column.flatten() if is_list else column, name).as_py()
                if found >= 0:
                    row = pc.list_parent_indices(column)[found].as_py() if is_list else found
                    return dataset.origins[side].where(dataset.ids(side)[row], column_name)
    return name


def _faults(
    failed: dict[str, list[tuple[str, str]]], locate: Callable[[str], str]
) -> tuple[list[Fault], dict[str, int]]:
    faults = [
        Fault(_short(locate(name)), f"the image '{_short(name)}': {reason}.", KINDS[kind][1], f"{kind} image")
        for kind, files in sorted(failed.items())
        for name, reason in files[:20]
    ]
    return faults, {f"{kind} image": len(files) for kind, files in sorted(failed.items())}


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings of odd metadata, which name no file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _formats() -> list[str]:
    """Return the formats that this Pillow opens; AVIF is optional."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _source(name: str, root: Path, allow_urls: bool, allow_outside_root: bool) -> Path | io.BytesIO:
    scheme = name[:16].split(":", 1)[0].lower()
    if scheme == "data" and ":" in name:
        raise ImageFault("missing", "a data: URL is no file name")
    if "://" not in name:
        return find_file(name, root, allow_outside_root)
    if scheme not in ("http", "https"):
        raise ImageFault("url", "only http and https URLs can be fetched")
    if not allow_urls:
        raise ImageFault("url", "fetching from URLs is not allowed by the config")
    try:
        return io.BytesIO(fetch(name, MAX_BYTES, FETCH_SECONDS))
    except FetchError as error:
        raise ImageFault("missing", f"it cannot be fetched: {error}") from None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation from 1 to 8; 1 if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF raises anything, while the pixels may be good
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Return the image as RGB, with each block of `factor` x `factor` pixels as their mean.

    It is converted strip by strip, which bounds memory.
    """
    top = _top(image) if image.mode.startswith(("I", "F")) else 255.0
    if image.width * image.height <= STRIP:
        return _to_rgb(image, top).reduce(factor) if factor > 1 else _to_rgb(image, top)
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    height = max(1, STRIP // (image.width * factor)) * factor
    for start in range(0, image.height, height):
        strip = image.crop((0, start, image.width, min(start + height, image.height)))
        made = _to_rgb(strip, top)
        small.paste(made.reduce(factor) if factor > 1 else made, (0, start // factor))
    return small


def _to_rgb(image: Image.Image, top: float) -> Image.Image:
    """Return an image of any mode as 8-bit RGB: 16-bit and float scaled from [0, top], transparency on white."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=top, neginf=0.0)
        return Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _top(image: Image.Image) -> float:
    """Return the value that becomes white.

    It is the greatest value of the format, 65,535 if there are values above 255, or the greatest finite value if that
    is more.
    """
    greatest, rows = 0.0, max(1, STRIP // image.width)
    for start in range(0, image.height, rows):
        values = np.asarray(image.crop((0, start, image.width, min(start + rows, image.height))), np.float64)
        greatest = max(greatest, float(values.max(initial=0.0, where=np.isfinite(values))))
    least = 65535.0 if image.mode.startswith("I;16") or greatest > 255 else 255.0
    return max(least, greatest)
