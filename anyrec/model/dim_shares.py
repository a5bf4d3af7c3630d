"""The share of the feature dimension that each group of features has (`dim_ratio`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from anyrec.core.errors import ConfigError, Fault

WHERE = "/dim_ratio"


class Share(NamedTuple):
    """A part of the feature dimension.

    Attributes:
        start: Its first place.
        width: Its number of places.
    """

    start: int
    width: int


def group_of(name: str) -> str:
    """Return the group of a feature: `text` for `text.title`."""
    return name.split(".", 1)[0]


def dim_shares(names: Iterable[str], dim: int, ratio: Mapping[str, float] | None) -> dict[str, Share]:
    """Divide the dimension between groups of features.

    The widths are proportional to the ratio, rounded by the largest remainder, at least 1, and add up to `dim`. The
    vectors of a group are zero outside of its share, so the sum of all features is the concatenation of the groups.

    Args:
        names: Names of the features of one side (`group.name`).
        dim: The feature dimension.
        ratio: Numbers above 0 by group. Groups without a feature get no share, and groups that are not named have the
            whole dimension. None shares nothing.

    Returns:
        The share of each named group that has a feature, in alphabetical order.

    Raises:
        ConfigError: If a number is not above 0 and finite, or there are more groups than dimensions.
    """
    if not ratio:
        return {}
    faults = [
        Fault(f"{WHERE}/{group}", f"expected a number above 0; found {part!r}.", "Leave the group out.", "bad value")
        for group, part in ratio.items()
        if not 0 < part < math.inf
    ]
    if faults:
        raise ConfigError(faults)
    groups = sorted({group_of(name) for name in names} & set(ratio))
    if len(groups) > dim:
        what = f"{len(groups)} groups cannot share {dim} dimensions."
        raise ConfigError(Fault(WHERE, what, "Increase `encoder_dim` (or `dim`), or name fewer groups.", "bad value"))
    total = sum(ratio[group] for group in groups)
    exact = [dim * ratio[group] / total for group in groups]
    widths = [max(1, math.floor(part)) for part in exact]
    places = range(len(groups))
    while sum(widths) < dim and groups:
        widths[max(places, key=lambda place: exact[place] - widths[place])] += 1
    while sum(widths) > dim:  # several groups were raised to 1
        wide = (place for place in places if widths[place] > 1)
        widths[min(wide, key=lambda place: exact[place] - widths[place])] -= 1
    starts = [sum(widths[:place]) for place in places]
    return {group: Share(start, width) for group, start, width in zip(groups, starts, widths, strict=True)}
