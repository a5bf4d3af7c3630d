"""How good the lists are, against what, for whom and why: from `ranking` (metrics over the whole catalogue) to `report`."""

SAMPLED = (
    "Sampled: not comparable. Each held-out item was ranked among random items only (evaluation.candidate_samples)."
)
