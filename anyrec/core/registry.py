"""The components that were found, by kind and name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ValidationError

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.param_faults import faults_of
from anyrec.core.renamed import current_names, present_name
from anyrec.core.strict_json import plain
from anyrec.core.types import ComponentClass, JsonObject


@dataclass
class Plugin:
    """One component. Its name is known without importing it; `load` imports it.

    Attributes:
        kind: `encoder`, `fusion`, ...
        type: Its name in a config.
        doc: First line of its docstring.
        origin: The file or package that it is from, as shown to the user.
        group: Feature group that an encoder reads.
        role: Role within the group that an encoder reads.
        preferred: Whether the encoder is its group's default.
        untrained: Whether the encoder needs no training.
        reads_files: Whether the encoder opens files that values name.
        schemes: Schemes of the addresses that a provider reads or a vector database has, separated by spaces.
        endings: Endings of the names that a provider reads, separated by spaces.
        marks: Patterns of names within the folders that a provider reads, separated by spaces.
        module: Name of its module.
        path: File of a drop-in plugin; None for components of importable modules.
        class_name: Name of its class in the module.
        loaded: The class, once it is imported.
    """

    kind: str
    type: str
    doc: str
    origin: str
    group: str = ""
    role: str = ""
    preferred: bool = False
    untrained: bool = False
    reads_files: bool = False
    schemes: str = ""
    endings: str = ""
    marks: str = ""
    module: str = ""
    path: Path | None = None
    class_name: str = ""
    loaded: type | None = field(default=None, repr=False)

    def load(self) -> ComponentClass:
        """Import the class.

        Raises:
            ConfigError: The file of a drop-in plugin cannot be imported.
        """
        loaded = self.loaded
        if loaded is None:
            try:
                loaded = self.loaded = getattr(_import(self.module, self.path), self.class_name)
            except Exception as error:
                if self.module.startswith("anyrec."):
                    raise
                fault = Fault(
                    self.origin, f"this plugin cannot be imported: {error}.", "Fix or remove it.", "broken plugin"
                )
                raise ConfigError(fault) from error
        return loaded


class Registry:
    """All components, by kind and name.

    Attributes:
        broken: A fault for each plugin file or package that could not be read. They may define components, so every
            error about an unknown component includes them.
    """

    def __init__(self) -> None:
        self._plugins: dict[tuple[str, str], Plugin] = {}
        self.broken: list[Fault] = []

    def add(self, plugin: Plugin) -> None:
        """Add a component.

        Raises:
            ConfigError: Another component of the same kind has the name.
        """
        known = self._plugins.get((plugin.kind, plugin.type))
        if known is not None and known.origin != plugin.origin:
            raise ConfigError(
                Fault(
                    plugin.origin,
                    f"the {plugin.kind} '{plugin.type}' is already defined in {known.origin}.",
                    "Give one of the two another `type`.",
                    "duplicate plugin",
                )
            )
        self._plugins[plugin.kind, plugin.type] = plugin

    def add_class(self, kind: str, cls: ComponentClass, origin: str) -> None:
        """Add a class that is already imported. Raises ConfigError as `add`."""
        is_encoder = kind == "encoder"
        self.add(
            Plugin(
                kind=kind,
                type=cls.type,
                doc=first_line(cls.__doc__),
                origin=origin,
                group=(cls.group or cls.type) if is_encoder else "",
                role=cls.role if is_encoder else "",
                preferred=is_encoder and cls.preferred,
                untrained=is_encoder and cls.untrained,
                reads_files=is_encoder and cls.reads_files,
                schemes=cls.schemes if kind in ("provider", "vector_database") else "",
                endings=cls.endings if kind == "provider" else "",
                marks=cls.marks if kind == "provider" else "",
                module=cls.__module__,
                class_name=cls.__qualname__,
                loaded=cls,
            )
        )

    def plugins(self, kind: str | None = None) -> list[Plugin]:
        """The components of one kind, or all, sorted by kind, group and type."""
        return sorted(
            (plugin for plugin in self._plugins.values() if kind in (None, plugin.kind)),
            key=lambda plugin: (plugin.kind, plugin.group, plugin.type),
        )

    def names(self, kind: str) -> list[str]:
        """The types of the components of one kind."""
        return [plugin.type for plugin in self.plugins(kind)]

    def groups(self) -> list[str]:
        """The feature groups that some encoder reads."""
        return sorted({plugin.group for plugin in self.plugins("encoder")})

    def get(self, kind: str, name: str, where: str = "/") -> ComponentClass:
        """Import and return the class of a component.

        Args:
            kind: Its kind.
            name: Its type.
            where: JSON pointer into the config, for the error.

        Raises:
            ConfigError: There is no such component, or it cannot be imported.
        """
        plugin = self._plugins.get((kind, present_name(kind, name)))
        if plugin is None:
            raise ConfigError(self.unknown(kind, name, where))
        return plugin.load()

    def unknown(self, kind: str, name: str, where: str) -> list[Fault]:
        """The faults of naming a component that does not exist, those of broken plugins included.

        Args:
            kind: The kind.
            name: The name that does not exist.
            where: JSON pointer into the config.
        """
        hint = did_you_mean(name, self.names(kind))
        return [Fault(where, f"there is no {kind} '{name}'.", hint, "unknown plugin"), *self.broken]

    def params(self, kind: str, name: str, options: JsonObject, where: str = "/") -> BaseModel:
        """Validate a component's options as strict JSON.

        Args:
            kind: Its kind.
            name: Its type.
            options: The options, without `type`.
            where: JSON pointer to the component in the config.

        Returns:
            An instance of the component's `Params`.

        Raises:
            ConfigError: With a fault for each bad option.
        """
        return params_of(self.get(kind, name, f"{where}/type"), options, where)

    def has_options(self, kind: str, name: str, options: Iterable[str]) -> bool:
        """Return True if a component has options of these names."""
        params = self.get(kind, name).Params
        return all(params.renamed.get(option, option) in params.model_fields for option in options)

    def file_groups(self) -> set[str]:
        """The feature groups whose values name files, unless a config names another encoder for a feature.

        An untrained encoder can read a feature that a model has another encoder, or none, for.
        """
        return {
            plugin.group
            for plugin in self.plugins("encoder")
            if plugin.reads_files and (plugin.untrained or plugin.type == self.encoder_for(plugin.group, plugin.role))
        }

    def encoder_for(self, group: str, role: str = "") -> str | None:
        """The name of a group's default encoder.

        Args:
            group: The feature group.
            role: The role of a temporal feature.

        Returns:
            The encoder that is `preferred`; else one whose type is the group or that reads exactly this role; else any
            that reads the group. None if there is none.
        """
        fitting = [plugin for plugin in self.plugins("encoder") if plugin.group == group and plugin.role in ("", role)]
        preferred = [plugin.type for plugin in fitting if plugin.preferred]
        exact = [plugin.type for plugin in fitting if plugin.type == group or (role and plugin.role == role)]
        return (preferred or exact or [plugin.type for plugin in fitting] or [None])[0]


def params_of(cls: ComponentClass, options: JsonObject, where: str = "/") -> BaseModel:
    """Validate the options of a component's class; arguments and errors as for `Registry.params`."""
    options, faults = plain(options)
    if faults:
        inside = where.rstrip("/")
        raise ConfigError([replace(fault, where=inside + fault.where.rstrip("/")) for fault in faults])
    try:
        options = current_names(options, cls.Params.renamed)
    except ValueError as error:
        raise ConfigError(Fault(where, f"{error}.", kind="bad value")) from None
    try:
        return cls.Params.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise ConfigError(faults_of(error, cls.Params, where)) from None


def first_line(doc: str | None) -> str:
    """The first line of a docstring."""
    return (doc or "").strip().split("\n")[0]


def drop_in_module(path: Path) -> str:
    """The module name of a drop-in file: unique for its path, so that two folders can hold files of the same name."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"anyrec_plugin_{path.stem}_{digest}"


def _import(module: str, path: Path | None) -> ModuleType:
    if module in sys.modules:
        return sys.modules[module]
    if path is None or module.startswith("anyrec."):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise
    return loaded
