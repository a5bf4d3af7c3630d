"""Reads a config: JSON, perhaps in the older flat style, with dotted overrides, every fault reported at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from anyrec.config import Config
from anyrec.errors import ConfigError, Fault
from anyrec.legacy import is_legacy, translate
from anyrec.plugins import faults_of


def load_config(source: str | Path | dict[str, Any] | None, overrides: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """The config, and what the user should know of how it was read.

    source: a file, the parsed JSON, or None for the defaults. overrides: `key.of.section=value`, the value as JSON or
    plain text. Raises ConfigError.
    """
    document = copy.deepcopy(source) if isinstance(source, dict) else {} if source is None else _read(Path(source))
    notes: list[str] = []
    if is_legacy(document):
        document, notes = translate(document)
    for override in overrides:
        _set(document, override)
    try:
        return Config.model_validate(document), notes
    except ValidationError as error:
        raise ConfigError(faults_of(error, Config)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            Fault(str(path), "there is no such file.", "`anyrec init data.json > cfg.json` writes one.", "no file")
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Fault(str(path), f"cannot be read: {error}.", kind="no file")) from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            Fault(f"{path}:{error.lineno}:{error.colno}", f"not valid JSON: {error.msg}.", kind="json")
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(
            Fault(str(path), f"a config is a JSON object; found a {type(document).__name__}.", kind="json")
        )
    return document


def _set(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(Fault(f"--set {override}", "expected key=value, as in fusion.type=gated.", kind="override"))
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    *parents, last = key.split(".")
    place = document
    for part in parents:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[last] = value
