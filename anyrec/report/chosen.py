"""The section of the report on what was chosen on the validation part: towers, a classical model, or a blend."""

from __future__ import annotations

from anyrec.core.types import JsonObject
from anyrec.model.choice import CHOICE, GROUPS, TOWERS, Choice
from anyrec.report.page import Section, Table, Text


def chosen_section(choice: Choice | None) -> Section:
    """Return the section; it is empty if nothing was compared."""
    if choice is None:
        return Section("")
    rows = []
    for name, value in choice.alone.items():
        weights = [choice.weights[group].get(name, 0.0) for group in reversed(GROUPS)]
        shares = [f"{weight:.0%}" if weight else "" for weight in weights]
        rows.append([name, f"{value:.4f}", *shares, _options(choice.options.get(name, {})) if name != TOWERS else ""])
    header = ["", f"{choice.metric} alone", "weight", "weight for users without a history", "options (tuned)"]
    total = "" if CHOICE not in choice.values else f" The choice reaches {choice.values[CHOICE]:.4f}."
    note = "Measured on the validation part, before any model learned from it."
    return Section("What was chosen", [Text(choice.sentence), Table(header, rows, f"{note}{total}")])


def _options(options: JsonObject) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in options.items()
    )
