"""How good the lists are, against what, for whom and why: from `ranking` (metrics over the whole catalogue) to `report`."""


def sampled(samples: int) -> str:
    """What stands wherever such figures are printed."""
    return f"Sampled: not comparable. Each held-out item was ranked among {samples:,} random items only."
