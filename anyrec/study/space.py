"""The search space of a study: the searched keys, checked against the config and the data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyrec.core.config import SearchRange
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair
from anyrec.core.types import Json, JsonObject
from anyrec.model.reconfigure import CHANGEABLE, OF_THE_RUN
from anyrec.study.marks import marked
from anyrec.study.trial_configs import TrialConfigs, value_at

if TYPE_CHECKING:
    from optuna.trial import Trial

MEASURE = ("data", "split", "evaluation", "seed", "training.metric")
"""Keys that decide what the metric of a trial means."""
UNUSED = (*CHANGEABLE, *OF_THE_RUN, "blend", "tune", "tracking", "training.refit")
"""Keys that a trial does not read."""
FORM = "Write KEY=LOW..HIGH, KEY=LOW..HIGH:log, KEY=LOW..HIGH:step=S, KEY=A,B,C or KEY alone."


@dataclass(frozen=True)
class Searched:
    """One searched key.

    Attributes:
        key: The key of the config.
        low: Smallest value of a range.
        high: Largest value.
        log: Whether the scale is logarithmic.
        step: Distance between neighbouring values; None for any.
        integer: Whether the values are integers.
        choices: The values instead of a range.
        when: The values of other searched keys with which this one is searched.
    """

    key: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: float | None = None
    integer: bool = False
    choices: Sequence[Json] | None = None
    when: Mapping[str, Sequence[Json]] = field(default_factory=dict)

    def suggest(self, trial: Trial) -> Json:
        """Return the value of the key in a trial."""
        if self.choices is not None:
            return json.loads(trial.suggest_categorical(self.key, [json.dumps(one) for one in self.choices]))
        if self.integer:
            step = int(self.step or 1)
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def encoded(self, value: Json) -> Json:
        """Return a value as the study stores it; None if the space does not have it."""
        if self.choices is not None:
            return json.dumps(value) if value in self.choices else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return None
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return value if abs(steps - round(steps)) < 1e-9 else None

    def described(self) -> str:
        """Return the values as text: `0.0001 to 0.1, logarithmic`."""
        if self.choices is not None:
            values = ", ".join(one if isinstance(one, str) else json.dumps(one) for one in self.choices)
        else:
            values = f"{self.low:g} to {self.high:g}" + (", logarithmic" if self.log else "")
            values += "" if self.step is None else f", step {self.step:g}"
        conditions = [f"{key} {' or '.join(map(str, accepted))}" for key, accepted in self.when.items()]
        return f"{values}, if {' and '.join(conditions)}" if conditions else values

    def as_json(self) -> JsonObject:
        """Return the key as JSON, to recognise the same search."""
        values = {"choices": self.choices} if self.choices is not None else {"low": self.low, "high": self.high}
        return {"key": self.key, **values, "log": self.log, "step": self.step, "when": dict(self.when)}


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each key that no other key has: `optimizer.learning_rate` is `learning_rate`."""
    found = {}
    for key in keys:
        parts = key.split(".")
        fewest = 2 if parts[-1] == "type" else 1
        ends = [".".join(parts[-count:]) for count in range(min(fewest, len(parts)), len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        found[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return found


def parse_search(texts: Sequence[str], marks: Callable[[], dict[str, SearchRange]]) -> JsonObject:
    """Return the search that the options `--search` describe, as `tune.search` has it.

    Args:
        texts: `KEY=LOW..HIGH`, with `:log` or `:step=S`; `KEY=A,B,C` or a JSON list; `KEY` for the range that the
            schema has for it; `auto` for all of these.
        marks: Returns the ranges of the schema by key.

    Raises:
        ConfigError: With all texts that are not understood.
    """
    found: JsonObject = {}
    faults = []
    for text in texts:
        where = f"--search {text}"
        if "=" not in text:
            known = marks()
            if text == "auto":
                found |= {key: one.model_dump(exclude_unset=True) for key, one in known.items()}
            elif text in known:
                found[text] = known[text].model_dump(exclude_unset=True)
            else:
                what = "the schema has no range for this key."
                faults.append(Fault(where, what, FORM, "search space"))
            continue
        pair = split_pair(text)
        try:
            if pair is None:
                raise ValueError("the key is missing")
            found[pair[0]] = _values(pair[1])
        except (ValueError, UnusableJson) as error:
            faults.append(Fault(where, f"{str(error).rstrip('.')}.", FORM, "search space"))
    if faults:
        raise ConfigError(faults)
    return found


def _values(text: str) -> Json:
    """Return the values of `KEY=VALUES` in `--search`, as `tune.search` has it."""
    if text.startswith("["):
        return json.loads(text)
    if ".." not in text:
        return [json_or_text(part) for part in text.split(",")]
    ends, *options = text.split(":")
    low, _, high = ends.partition("..")
    found = {"low": _number(low), "high": _number(high)}
    for option in options:
        name, _, value = option.partition("=")
        if name == "log" and not value:
            found["log"] = True
        elif name == "step":
            found["step"] = _number(value)
        else:
            raise ValueError(f"'{option}' is neither log nor step=S")
    return found


def _number(text: str) -> int | float:
    value = json_or_text(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"'{text}' is not a number")
    return value


def search_space(configs: TrialConfigs) -> list[Searched]:
    """Return the searched keys of a config, those that others depend on first.

    Every end of a range and every choice is tried with the config and the data, so that no trial fails by it.

    Args:
        configs: Makes configs from the complete config of the study.

    Raises:
        ConfigError: With the faults of all keys.
    """
    config, faults, found = configs.base, [], []
    if not config.tune.search:
        for key, one in marked(config, configs.registry).items():
            if _forbidden(key) is None and not _tried(configs, {}, key, one):
                found.append(_searched(configs, {}, key, one, {}))
        if not found:
            what = "no key of this config has a range in the schema."
            faults.append(Fault("/tune/search", what, "Give keys and ranges, or --search.", "search space"))
    else:
        for key, one in config.tune.search.items():
            space, wrong = _checked(configs, config.tune.search, key, one)
            faults += wrong
            found += [] if space is None else [space]
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return _in_order(sorted(found, key=lambda one: len(one.when)))


def _in_order(found: list[Searched]) -> list[Searched]:
    """Return keys so that each follows those that its conditions name, and otherwise in the given order.

    Raises:
        ConfigError: If conditions depend on each other.
    """
    ordered: list[Searched] = []
    while found:
        waiting = {one.key for one in found}
        ready = next((one for one in found if not waiting & one.when.keys()), None)
        if ready is None:
            what = f"the conditions of {', '.join(sorted(waiting))} depend on each other."
            raise ConfigError(Fault("/tune/search", what, "Leave one of the conditions out.", "search space"))
        ordered.append(ready)
        found.remove(ready)
    return ordered


def active(values: Mapping[str, Json], one: Searched) -> bool:
    """Return whether a key is searched, given the values of the keys before it."""
    return all(key in values and values[key] in accepted for key, accepted in one.when.items())


def baseline(space: Sequence[Searched], configs: TrialConfigs) -> JsonObject | None:
    """Return the values of the config itself as the study stores them; None if the space does not have them."""
    values: JsonObject = {}
    encoded: JsonObject = {}
    for one in space:
        if active(values, one):
            values[one.key] = _present(configs, one.key)
            encoded[one.key] = one.encoded(values[one.key])
    return None if any(value is None for value in encoded.values()) else encoded


def _present(configs: TrialConfigs, key: str) -> Json:
    """Return the value of a key in the config of the study, or the default of its component."""
    config, (section, _, option) = configs.base, key.rpartition(".")
    value = value_at(config.model_dump(mode="json"), key)
    if value is not None or not section:
        return value
    chosen = value_at(config.model_dump(mode="json"), section)
    if not isinstance(chosen, dict) or not isinstance(chosen.get("type"), str):
        return None
    names = [plugin for plugin in configs.registry.plugins() if plugin.type == chosen["type"]]
    for plugin in names:
        field = plugin.load().Params.model_fields.get(option)
        if field is not None:
            return field.get_default(call_default_factory=True)
    return None


def _forbidden(key: str) -> str | None:
    """Return why a key cannot be searched; None if it can."""
    if any(key == one or key.startswith(f"{one}.") for one in MEASURE):
        return "it decides what the metric measures, so trials with different values could not be compared"
    if any(key == one or key.startswith(f"{one}.") for one in UNUSED):
        return "a trial does not read it"
    return None


def _checked(
    configs: TrialConfigs, search: Mapping[str, SearchRange], key: str, one: SearchRange
) -> tuple[Searched | None, list[Fault]]:
    """Return a key of the search, or its faults."""
    where = f"/tune/search/{key}"
    reason = _forbidden(key)
    if reason is not None:
        return None, [Fault(where, f"this key cannot be searched: {reason}.", "Leave it out.", "search space")]
    unknown = [other for other in one.when if other not in search]
    if unknown:
        what = f"'when' names '{unknown[0]}', which is not searched."
        return None, [Fault(where, what, "Search it as well, or leave the condition out.", "search space")]
    conditions = _conditions(configs, search, key, one)
    first = {other: accepted[0] for other, accepted in conditions.items() if accepted}
    faults = _tried(configs, first, key, one)
    if faults:
        return None, [Fault(where, fault.what, fault.hint, "search space") for fault in faults]
    return _searched(configs, first, key, one, conditions), []


def _conditions(
    configs: TrialConfigs, search: Mapping[str, SearchRange], key: str, one: SearchRange
) -> dict[str, list[Json]]:
    """Return the values of other keys with which a key is searched.

    For an option of a component whose `type` is searched, these are the types that have it, with these values.
    """
    kind = f"{key.rpartition('.')[0]}.type"
    types = search[kind].choices if kind in search and kind != key and kind not in one.when else None
    if not types:
        return dict(one.when)
    having = [name for name in types if not _tried(configs, {kind: name}, key, one)]
    if len(having) == len(types):
        return dict(one.when)
    return {**one.when, kind: having or types[:1]}


def _tried(configs: TrialConfigs, others: Mapping[str, Json], key: str, one: SearchRange) -> list[Fault]:
    """Return the faults of the ends of a range, or of all choices."""
    faults: list[Fault] = []
    for value in [one.low, one.high] if one.choices is None else one.choices:
        try:
            _, idle = configs.make({**others, key: value})
        except ConfigError as error:
            faults += [
                Fault(fault.where, f"{fault.what.rstrip('.')} (with {key}={json.dumps(value)}).", fault.hint)
                for fault in error.faults
            ]
            continue
        if key in idle and value != _present(configs, key):
            faults.append(Fault(key, "this key has no effect in this config.", "Leave it out.", "no effect"))
    return list(dict.fromkeys(faults))


def _searched(
    configs: TrialConfigs, others: Mapping[str, Json], key: str, one: SearchRange, when: Mapping[str, Sequence[Json]]
) -> Searched:
    """Return a key that is valid, with the type of its values: integers if no number between them is accepted."""
    if one.choices is not None:
        return Searched(key, choices=one.choices, when=when)
    assert one.low is not None and one.high is not None
    low, high, step = one.low, one.high, one.step
    whole = all(float(value).is_integer() for value in (low, high, step or 1))
    if whole:
        try:
            configs.make({**others, key: low + 0.5})
            whole = False
        except ConfigError:
            pass
    if step is not None:
        high = low + math.floor((high - low) / step + 1e-9) * step
    return Searched(key, low, high, one.log, step, whole, None, when)
