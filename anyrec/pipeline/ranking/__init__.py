"""The ranker of a pipeline: its features, its training and its scores."""
