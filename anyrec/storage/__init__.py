"""Layer 5: the model directory and its card."""
