"""The data of a command: files and folders, or the tables that the config names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyrec.cli.terminal import log

if TYPE_CHECKING:
    from anyrec.core.config import Config
    from anyrec.data.dataset import Dataset


def read_dataset(data: Path | Sequence[Path] | None, config: Config, plugins: Sequence[str | Path] = ()) -> Dataset:
    """Read the data that a command names, or else the tables of the config's `data.sources`.

    Args:
        data: File or folder of the data, or several that are one data set; None or none for the tables of the config.
        config: The config.
        plugins: Folders of plugins, in addition to those of the config.
    """
    from anyrec.core.discovery import discover
    from anyrec.data.dataset import Dataset

    paths = [data] if isinstance(data, Path) else list(data or ())
    if not paths:
        return Dataset.from_sources(config.data, discover([*config.plugins, *plugins]))
    if config.data.sources is not None:
        log.info("%s is read, and not the tables of data.sources.", " and ".join(map(str, paths)))
    return Dataset.read(paths, config.data)
