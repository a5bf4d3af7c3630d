"""Layer 3: metrics of ranked lists and of scored pairs, computed on held-out interactions.

Modules:
    definitions: the definition of every metric in words; docs/metrics.md is generated from it.
    ranking: rank of each held-out item among all candidates; accuracy metrics from these ranks.
    list_metrics: coverage, novelty, diversity, serendipity, popularity and calibration of the recommended lists.
    held_out: the targets of a split part, and their ranking by a fitted model.
    measure: all metrics of one model on one split part, per user.
    repeats: metrics of targets that their user interacted with before, separate from the other targets.
    slices: all metrics in groups of users and of items, such as those without training interactions.
    classification: metrics of labelled pairs at one score threshold.
    heads: metrics of a model's heads, such as the type of interaction or the rating.
    truth_files: metrics on a file of labelled pairs or of each user's true items.
    pair_metrics: ranking metrics of user-item pairs that happened after everything that a model knows.
    statistics: bootstrap intervals, paired comparisons and correlations.
"""


def sampled(samples: int) -> str:
    """Return the note that is printed wherever sampled metrics are printed."""
    return f"Sampled: not comparable. Each held-out item was ranked among {samples:,} random items only."
