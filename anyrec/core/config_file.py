"""Files of configs: JSON or YAML."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from anyrec.core.errors import ConfigError, Fault
from anyrec.core.strict_json import parse_json, printable
from anyrec.core.strict_yaml import is_yaml, parse_yaml
from anyrec.core.types import JsonObject
from anyrec.core.values import show

LARGEST_FILE = 16 << 20
"""Maximum size of a config file, in bytes."""


def read_config_file(path: Path) -> JsonObject:
    """Read an object from a JSON or YAML file in UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: The file cannot be read or holds something else.
    """
    text = _text_of(path)
    try:
        document = parse_yaml(text, path, ConfigError) if is_yaml(path) else parse_json(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            Fault(f"{path}:{error.lineno}:{error.colno}", f"not valid JSON: {error.msg}.", kind="json")
        ) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(Fault(str(path), f"not usable JSON: {_reason(error)}.", kind="json")) from None
    if not isinstance(document, dict):
        raise ConfigError(Fault(str(path), f"a config is an object of keys; found {show(document)}.", kind="json"))
    return document


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "an integer has thousands of digits" if "integer string" in str(error) else str(error)


def _text_of(path: Path) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            raise ConfigError(Fault(str(path), f"this is {kind}.", "Give a JSON or YAML file.", "no file"))
        if found.st_size > LARGEST_FILE:
            what = f"a file of {found.st_size:,} bytes is no config; the most is {LARGEST_FILE:,}."
            raise ConfigError(Fault(str(path), what, "Give the config's file.", "no file"))
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        hint = "`anyrec init data.json > cfg.json` writes one."
        raise ConfigError(Fault(printable(str(path)), "there is no such file.", hint, "no file")) from None
    except UnicodeDecodeError as error:
        what = f"this file is not UTF-8: the byte at {error.start} cannot be read."
        raise ConfigError(Fault(str(path), what, "Save it as UTF-8.", "encoding")) from None
    except (OSError, ValueError) as error:
        raise ConfigError(Fault(printable(str(path)), f"cannot be read: {error}.", kind="no file")) from None
