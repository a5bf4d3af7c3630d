"""How interaction types, ratings, labels and weights are interpreted, in sentences for `doctor`, `init` and `train`."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.errors import did_you_mean
from anyrec.data.findings import Finding, count
from anyrec.data.labels import Labels, label_interactions
from anyrec.data.sorting import distinct
from anyrec.data.summary import numbers, value_counts
from anyrec.data.tables import Tables

SHOWN_TYPES = 12
OTHER_TYPES = "data.positive_types chooses which types count, and with what weight."
NEGATIVE_TYPE = re.compile(
    r"\b(no|not|never|(do|does|did|wo|would|is|was)nt|(charge|pay|money) ?back|retour\w*|storno|storniert|voided"
    r"|un(like|love|follow|subscribe|fav|save|star|bookmark|heart|install|pin|match|join|recommend)\w*"
    r"|(down|neg)[ ]?vot\w*|thumbs?[ ]?down|swip\w*[ ]left|left[ ]swip\w*"
    r"|(return|refund|dislik|remov|delet|skip|cancel|reject|hid|hate|block|report|complain|complaint|negativ|bad"
    r"|dismiss|ignor|mut|bann?|spam|declin|abandon|bounc|churn|unhapp|dissatisf|downrat|drop|discard|exclud|quit"
    r"|blacklist|blocklist)"
    r"(e|y|ed|ping|ped|led|ling|ing|s|es|en|den|ion|lation|al|ment|ive)?)\b"
)
"""Words that say the opposite of liking."""
NEGATIVE_SIGNS = ("-1", "-", "👎", "❌")
"""Types that consist of one of these signs say the opposite of liking too."""


def interpretation(dataset: Tables, config: DataConfig) -> list[Finding]:
    """Report what each interaction type, rating range, label and weight counts as.

    Args:
        dataset: The data.
        config: The config's `data` section.

    Returns:
        Findings of level "note" if the meaning is plain, "warning" if it is probably not what was meant, and "problem"
        if training refuses it.
    """
    if not len(dataset.interactions):
        return []
    labels = label_interactions(dataset, config, checked=False)
    return [
        *_types(dataset, config, labels),
        *_ratings(dataset, config),
        *_labels(dataset),
        *_weights(dataset),
        *_recency(dataset, config),
        *_history(dataset, config),
        *_both(dataset, labels),
    ]


def is_negative_name(name: str) -> bool:
    """Return whether the name of an interaction type says that the user did not like or keep the item.

    Names are split at capitals, digits, dots, dashes and underscores.
    """
    if name.strip() in NEGATIVE_SIGNS:
        return True
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return NEGATIVE_TYPE.search(re.sub(r"[^a-z]+", " ", spaced.lower().replace("'", ""))) is not None


def _types(dataset: Tables, config: DataConfig, labels: Labels) -> list[Finding]:
    """Report how each interaction type counts, and types that are probably misunderstood."""
    column = dataset.column("interaction_type")
    chosen = config.positive_types
    if column is None:
        if chosen is None:
            return []
        text = "data.positive_types is set, but no interaction has a type, so no interaction counts as positive by it."
        return [Finding("warning", "types not used", text, "Leave it out, or give interactions a type.")]
    counts, untyped = value_counts(dataset, "interaction_type")
    names = list(counts)
    weights = dict.fromkeys(names, 1.0) if chosen is None else chosen
    liked = [name for name in names if weights.get(name, 0.0) > 0]
    found = _meaning_of_types(dataset, config, counts, names, liked, untyped)
    odd = [name for name in liked if is_negative_name(name) and _is_positive(column, name, labels)]
    if odd:
        subject, says = ("type", "counts as positive (liked), though its name says")
        if len(odd) > 1:
            subject, says = ("types", "count as positive (liked), though their names say")
        text = f"The interaction {subject} {_listed(odd, counts)} {says} the opposite."
        advice = "Name the types that mean liking in data.positive_types, and give dislikes a label of 0."
        found.append(Finding("warning", "types that look negative", text, advice))
    for name in sorted(set(chosen or ()) - set(names)):
        text = f"data.positive_types names '{name}', which no interaction has."
        found.append(Finding("warning", "types not found", text, did_you_mean(name, names)))
    return found


def _meaning_of_types(
    dataset: Tables, config: DataConfig, counts: dict[str, int], names: list[str], liked: list[str], untyped: int
) -> list[Finding]:
    """Report in one sentence which types count as positive, and which as neither positive nor negative.

    Args:
        dataset: The data.
        config: The config's `data` section.
        counts: The number of interactions of each type.
        names: The types, most frequent first.
        liked: Those of them that count as positive.
        untyped: The number of interactions without a type.
    """
    chosen = config.positive_types
    weights = dict.fromkeys(names, 1.0) if chosen is None else chosen
    other = [name for name in names if name not in set(liked)]
    parts = []
    if liked:
        parts.append(f"count as positive: {_listed(liked, counts, weights)}")
    if other or (chosen is not None and untyped):
        missing = [f"no type ({untyped:,})"] if untyped else []
        listed = [_listed(other, counts)] if other else []
        parts.append(f"count as neither positive nor negative: {', '.join(listed + missing)}")
    elif untyped and parts:
        parts[-1] += f", no type ({untyped:,})"
    if not parts:
        return []
    decided = " where no label or rating decides" if _has(dataset, "label") or config.min_rating is not None else ""
    return [
        Finding("note", "meaning of types", f"Interaction types that {'; that '.join(parts)}{decided}.", OTHER_TYPES)
    ]


def _is_positive(types: pa.Array, name: str, labels: Labels) -> bool:
    """Return whether an interaction of this type is positive."""
    rows = pc.fill_null(pc.equal(types, name), False).to_numpy(zero_copy_only=False)
    return bool(labels.positive[rows].any())


def _listed(names: list[str], counts: dict[str, int], weights: dict[str, float] | None = None) -> str:
    """Return the names with their counts and weights, at most SHOWN_TYPES of them."""
    shown = []
    for name in names[:SHOWN_TYPES]:
        weight = "" if weights is None or weights[name] == 1 else f", weight {weights[name]:g}"
        shown.append(f"'{name}' ({counts[name]:,}{weight})")
    hidden = len(names) - len(shown)
    return ", ".join(shown) + (f" and {hidden:,} more" if hidden > 0 else "")


def _ratings(dataset: Tables, config: DataConfig) -> list[Finding]:
    """Report how ratings count."""
    ratings, least = numbers(dataset, "rating"), config.min_rating
    values = ratings.values
    if not len(values):
        if least is None:
            return []
        text = "data.min_rating is set, but no interaction has a rating, so it has no effect."
        return [Finding("warning", "ratings not found", text, "Leave it out, or give interactions a rating.")]
    low, high = values.min(), values.max()
    span = f"Ratings are from {ratings.span()}"
    if least is None:
        text = f"{span} and are not read: without data.min_rating, every rating counts as positive."
        below = (values < 0).mean()
        if below:
            text += f" {below:.0%} of them are below 0."
        elif low == 0 and high == 1:
            text += f" {(values == 0).mean():.0%} of them are 0."
        level = "warning" if low < 0 or (low == 0 and high == 1) else "note"
        advice = (
            "Set data.min_rating to the lowest rating that means liking; lower ratings are then explicit negatives."
        )
        return [Finding(level, "ratings not read", text, advice)]
    share = (values < least).mean()
    text = f"{span}; those below data.min_rating ({least:g}) are explicit negatives: {share:.0%}."
    if 0 < share < 1:
        return [
            Finding("note", "meaning of ratings", text, "A label of the same row takes precedence over its rating.")
        ]
    return [Finding("warning", "ratings on one side", text, "Check data.min_rating: it divides nothing.")]


def _labels(dataset: Tables) -> list[Finding]:
    """Report how labels count."""
    values = numbers(dataset, "label").values
    if not len(values):
        return []
    text = f"Labels decide {count(len(values), 'interaction')}: {int((values == 1).sum()):,} are positive (1), "
    text += f"{int((values == 0).sum()):,} explicit negatives (0)."
    return [
        Finding("note", "meaning of labels", text, "A label takes precedence over the type and the rating of its row.")
    ]


def _weights(dataset: Tables) -> list[Finding]:
    """Report how weights count."""
    weights = numbers(dataset, "weight")
    values = weights.values
    if not len(values):
        return []
    below, zero = int((values < 0).sum()), int((values == 0).sum())
    text = f"Weights are from {weights.span()}"
    if below:
        text += f"; {below:,} of {len(values):,} are below 0, which is a fault: training refuses them."
        advice = "Give dislikes a label of 0 (or a rating and data.min_rating); leave out rows that do not count."
        return [Finding("problem", "negative weights", text, advice)]
    not_learned = f"{count(zero, 'interaction')} with a weight of 0 {'is' if zero == 1 else 'are'} not learned from"
    text += f"; {not_learned}." if zero else "."
    return [Finding("note", "meaning of weights", text, "A positive counts in proportion to its weight.")]


def _recency(dataset: Tables, config: DataConfig) -> list[Finding]:
    """Report options that weight by time, if there are no times."""
    if _has(dataset, "timestamp"):
        return []
    names = [name for name in ("half_life_days", "half_life_interactions") if getattr(config, name) is not None]
    text = "data.{} is set, but no interaction has a timestamp, so it has no effect."
    advice = "Leave it out, or give interactions a timestamp."
    return [Finding("warning", "times not found", text.format(name), advice) for name in names]


def _history(dataset: Tables, config: DataConfig) -> list[Finding]:
    """Report a feature that `data.history` names and no user has."""
    names = [name.removeprefix("temporal.") for name in dataset.users.column_names if name.startswith("temporal.")]
    if config.history is None or config.history in names:
        return []
    text = f"data.history names '{config.history}', a temporal feature that no user has: histories are the interactions"
    text += " of the data, and only requests can give such a list."
    return [Finding("warning", "history not found", text, did_you_mean(config.history, names))]


def _both(dataset: Tables, labels: Labels) -> list[Finding]:
    """Report pairs that are both positive and explicitly negative."""
    if not labels.negative.any():
        return []
    pairs = dataset.user_rows * len(dataset.items) + dataset.item_rows
    positive, negative = distinct(pairs[labels.positive]), distinct(pairs[labels.negative])
    both = int(np.isin(negative, positive, assume_unique=True).sum())
    if not both:
        return []
    have = "has" if both == 1 else "have"
    text = f"{count(both, 'user-item pair')} {have} positive and explicitly negative interactions."
    advice = "Training counts such a pair as positive; leave out the rows that no longer hold."
    return [Finding("note", "pairs with both labels", text, advice)]


def _has(dataset: Tables, name: str) -> bool:
    return dataset.column(name) is not None
