"""Reading a config: JSON or YAML, in the current or another format, with overrides of single keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from anyrec.core.check_config import config_faults
from anyrec.core.config import Config
from anyrec.core.config_file import read_config_file
from anyrec.core.discovery import discover
from anyrec.core.effects import chosen_by_user, idle_keys, without
from anyrec.core.errors import ConfigError, Fault, checked_path
from anyrec.core.infer_types import with_types
from anyrec.core.legacy import is_legacy
from anyrec.core.legacy import translate as translate_flat
from anyrec.core.param_faults import faults_of, without_faulty_keys
from anyrec.core.registry import Registry
from anyrec.core.renamed import noting_former_names
from anyrec.core.strict_json import UnusableJson, json_or_text, plain, split_pair
from anyrec.core.translation import Translation
from anyrec.core.two_tower_project import is_of_the_project
from anyrec.core.two_tower_project import translate as translate_project
from anyrec.core.types import JsonObject
from anyrec.core.values import show


def load_config(
    source: str | Path | JsonObject | None,
    overrides: Sequence[str] = (),
    *,
    plugins: Sequence[str | Path] = (),
    registry: Registry | None = None,
    encoders_may_follow: bool = False,
) -> tuple[Config, list[str]]:
    """Read a config and check every key of it that can be checked without data.

    Args:
        source: A file, the parsed JSON, or None for the defaults.
        overrides: `key.of.section=value`, the value as JSON or plain text.
        plugins: Folders of drop-in plugins, in addition to those that the config names.
        registry: The components to check against; by default those of `discover`.
        encoders_may_follow: Accept the name of an encoder that the registry does not have, because it may be added
            before `fit`.

    Returns:
        The config, and notes about keys that were translated or renamed.

    Raises:
        ConfigError: With all faults.
    """
    config, notes, translation, faults = _parsed(source, overrides)
    with noting_former_names() as renamed:
        if registry is None:
            faults += [
                Fault(f"/plugins/{n}", f"there is no folder {show(folder)}.", "Give a folder of plugins.", "no folder")
                for n, folder in enumerate(config.plugins)
                if not os.path.isdir(folder)
            ]
            registry = discover([*config.plugins, *plugins])
        try:
            config, inferred = with_types(config, registry)
        except ConfigError as error:
            raise ConfigError(_traced([*faults, *error.faults], translation)) from None
        notes += inferred
        faults += config_faults(config, registry, encoders_may_follow)
    if faults:
        raise ConfigError(_traced(faults, translation))
    if translation is not None:
        config, idle = _without_idle_keys(config, registry)
        notes += idle
    return config, notes + renamed


def read_config(source: str | Path | JsonObject | None, overrides: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """Read a config and check names and values of its keys, but not its components.

    Args:
        source: As for `load_config`.
        overrides: As for `load_config`.

    Returns:
        The config, and notes about keys that were translated or renamed.

    Raises:
        ConfigError: With all faults.
    """
    config, notes, translation, faults = _parsed(source, overrides)
    if faults:
        raise ConfigError(_traced(faults, translation))
    if translation is not None:
        config, idle = _without_idle_keys(config, discover(config.plugins))
        notes += idle
    return config, notes


def _parsed(
    source: str | Path | JsonObject | None, overrides: Sequence[str]
) -> tuple[Config, list[str], Translation | None, list[Fault]]:
    """Return the config, the notes of `read_config`, its translation if it was in another format, and faults.

    The config is without the keys that have faults, so that the components of the others can be checked.

    Raises:
        ConfigError: With all faults, if the rest is no config either.
    """
    document, faults = plain(_document_of(source))
    faults += [fault for override in overrides for fault in _set(document, override)]
    _set_root(document, Path() if source is None or isinstance(source, dict) else Path(source).parent)
    if faults:
        raise ConfigError(faults)
    notes: list[str] = []
    translation = _translation(document)
    if translation is not None:
        document, notes = translation.document, translation.notes
        if "defaults" not in document:
            document["defaults"] = "fixed"
            notes.append(
                "A config in another format keeps the fixed defaults; 'defaults': 'fitted' fits them to the data."
            )
    with noting_former_names() as renamed:
        faults = []
        try:
            config = Config.model_validate(document)
        except ValidationError as error:
            faults = faults_of(error, Config)
            try:
                config = Config.model_validate(without_faulty_keys(document, error))
            except ValidationError:
                raise ConfigError(_traced(faults, translation)) from None
    return config, notes + renamed, translation, faults


def _traced(faults: list[Fault], translation: Translation | None) -> list[Fault]:
    """Return faults that also name the keys of the other format that the values are from."""
    return faults if translation is None else [translation.traced(fault) for fault in faults]


def _translation(document: JsonObject) -> Translation | None:
    """Return a config in another format translated; None if it is in the current one. Raises ConfigError."""
    if is_of_the_project(document):
        return translate_project(document)
    return translate_flat(document) if is_legacy(document) else None


def _without_idle_keys(config: Config, registry: Registry) -> tuple[Config, list[str]]:
    """Return a translated config without the keys that have no effect, and a note for each.

    Other formats set such keys together with others, so they are no mistake of the user.
    """
    idle = [one for one in chosen_by_user(idle_keys(config, registry), config) if one.is_fault]
    document = without(config.model_dump(mode="json", exclude_unset=True), idle)
    return Config.model_validate(document), [f"{one.note} It is left out." for one in idle]


def with_root(config: Config) -> Config:
    """Return a config whose `data.sources` has the working directory as the folder of relative paths, unless set."""
    sources = config.data.sources
    if sources is None or sources.root is not None:
        return config
    data = config.data.model_copy(update={"sources": sources.model_copy(update={"root": str(Path().absolute())})})
    return config.model_copy(update={"data": data})


def _set_root(document: JsonObject, folder: Path) -> None:
    """Write down the folder that relative paths of `data.sources` start from, so that a copy of the config finds them.

    Args:
        document: The config; it is changed.
        folder: The folder of the config file.
    """
    data = document.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    if isinstance(sources, dict) and isinstance(sources.get("root", ""), (str, type(None))):
        sources["root"] = str((folder / (sources.get("root") or "")).absolute())


def _document_of(source: str | Path | JsonObject | None) -> JsonObject:
    """The parsed JSON of a config that is given as a file, as parsed JSON, or not at all."""
    if source is None or isinstance(source, dict):
        return source or {}
    return read_config_file(checked_path(source, "config", ConfigError))


def _set(document: JsonObject, override: str) -> list[Fault]:
    """Set one key of `document`; the faults of the override."""
    pair = split_pair(override)
    parts = pair[0].split(".") if pair else [""]
    if pair is None or not all(parts):
        return [Fault(f"--set {override}", "expected key=value, as in fusion.type=gated.", kind="override")]
    where = f"--set {pair[0]}"
    try:
        value = json_or_text(pair[1])
    except UnusableJson as error:
        return [Fault(where, str(error), kind="override")]
    value, faults = plain(value)
    if faults:
        return [Fault(where, fault.what, fault.hint, fault.kind) for fault in faults]
    place = document
    for number, part in enumerate(parts[:-1]):
        inner = place.get(part)
        if inner is None:
            inner = place[part] = {}
        elif not isinstance(inner, dict):
            what = f"'{'.'.join(parts[: number + 1])}' is {show(inner)}, which has no keys."
            return [Fault(where, what, "Set the whole value.", "override")]
        place = inner
    place[parts[-1]] = value
    return []
