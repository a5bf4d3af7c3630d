"""Layer 2: prepared columns to vectors to scores, and a fitted model with the users and items it knows."""
