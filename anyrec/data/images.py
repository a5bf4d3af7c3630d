"""Opening anybody's image files safely: bounded, confined, any mode, upright; what cannot be read is told."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from anyrec.config import DataConfig
from anyrec.contracts import Context
from anyrec.data.dataset import Dataset
from anyrec.errors import DataError, Fault

MAX_PIXELS = 64_000_000
MAX_BYTES = 32_000_000
"""Of an image fetched from a URL."""
FETCH_SECONDS = 20


class ImageFault(Exception):
    """An image that cannot be used. `kind`: missing, corrupt, too large, or url."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


def open_image(name: str, root: Path, *, allow_urls: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as RGB, turned upright, on white where it is transparent, the first frame of an animation.

    name: relative to `root`, an absolute path, or a URL where they are allowed. Raises ImageFault.
    """
    source = _source(name, root, allow_urls)
    try:
        with Image.open(source) as image:
            if image.width * image.height > max_pixels:
                raise ImageFault("too large", f"{image.width} x {image.height} pixels; {max_pixels:,} are allowed")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise ImageFault("too large", "it would unpack to far more pixels than are allowed") from None
    except FileNotFoundError:
        raise ImageFault("missing", "there is no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        raise ImageFault("corrupt", str(error) or "it cannot be decoded") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16-bit and float scaled by their range, transparency laid on white."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
        top = max(top, float(values.max(initial=0)))
        return Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def load_images(
    names: Sequence[str], context: Context, make: Callable[[Image.Image], Any]
) -> tuple[list[Any], np.ndarray]:
    """`make(image)` of every readable file, and (names,) bool which those are.

    The rest are counted in one sentence a kind in `context.warnings`; under `context.strict` they raise DataError.
    """
    failed: dict[str, list[tuple[str, str]]] = {}

    def load(name: str) -> Any:
        try:
            return make(open_image(name, context.root, allow_urls=context.allow_urls))
        except ImageFault as fault:
            return fault

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(load, names))
    for name, result in zip(names, results, strict=True):
        if isinstance(result, ImageFault):
            failed.setdefault(result.kind, []).append((name, str(result)))
    if failed and context.strict:
        raise DataError(*_faults(failed))
    for kind, files in failed.items():
        context.warnings.append(
            f"{len(files)} of {len(names)} images are {_WORDS[kind]} and count as absent; the first: '{files[0][0]}' ({files[0][1]})."
        )
    readable = np.array([not isinstance(result, ImageFault) for result in results], bool)
    return [result for result in results if not isinstance(result, ImageFault)], readable


_WORDS = {"missing": "missing", "corrupt": "corrupt", "too large": "too large", "url": "URLs, which are not allowed,"}


def check_images(dataset: Dataset, options: DataConfig) -> tuple[list[Fault], dict[str, int]]:
    """Every image of the dataset that cannot be used, at most 20 a kind, and how many of each kind there are."""
    root = Path(options.image_root) if options.image_root else dataset.root
    failed: dict[str, list[tuple[str, str]]] = {}
    names = sorted(image_names(dataset))

    def check(name: str) -> ImageFault | None:
        try:
            open_image(name, root, allow_urls=options.allow_urls)
        except ImageFault as fault:
            return fault
        return None

    with ThreadPoolExecutor(4) as pool:
        for name, fault in zip(names, pool.map(check, names), strict=True):
            if fault is not None:
                failed.setdefault(fault.kind, []).append((name, str(fault)))
    return _faults(failed)


def image_names(dataset: Dataset) -> set[str]:
    """Every distinct image the records name."""
    found: set[str] = set()
    for table in (dataset.users, dataset.items):
        for name in table.column_names:
            if name.startswith("image."):
                column = table.column(name).combine_chunks()
                flat = column.flatten() if pa.types.is_list(column.type) else column
                found.update(flat.drop_null().unique().to_pylist())
    return found


def _faults(failed: dict[str, list[tuple[str, str]]]) -> tuple[list[Fault], dict[str, int]]:
    mend = {
        "missing": "Put the file there, or name the folder with --image_root.",
        "corrupt": "Replace the file.",
        "too large": "Make it smaller.",
        "url": "Set data.allow_urls to true, or download it.",
    }
    faults = [
        Fault(name, f"{reason}.", mend[kind], f"{kind} image")
        for kind, files in sorted(failed.items())
        for name, reason in files[:20]
    ]
    return faults, {f"{kind} image": len(files) for kind, files in sorted(failed.items())}


def _source(name: str, root: Path, allow_urls: bool) -> Path | io.BytesIO:
    if name.startswith(("http://", "https://")):
        if not allow_urls:
            raise ImageFault("url", "fetching from URLs is not allowed by the config")
        try:
            with urllib.request.urlopen(name, timeout=FETCH_SECONDS) as reply:
                data = reply.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise ImageFault("missing", f"it cannot be fetched: {error}") from None
        if len(data) > MAX_BYTES:
            raise ImageFault("too large", f"more than {MAX_BYTES:,} bytes")
        return io.BytesIO(data)
    if "://" in name:
        raise ImageFault("url", "only http and https URLs can be fetched")
    path = root / name
    if not path.is_file():
        raise ImageFault("missing", "there is no such file")
    return path
