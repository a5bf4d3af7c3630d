"""Layer 7: answers to requests: single results, batches, explanations."""
