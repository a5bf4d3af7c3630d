"""How good the lists are: `ranking` (metrics over the whole catalogue)."""
