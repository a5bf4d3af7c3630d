"""Layer 7: the report of a trained model: baselines, slices, figures and the page."""
