"""Retrieve, rank, rerank: stages (the contracts), requests (users block by block), run (one request through all), lists (their
arithmetic), ranker and train_ranker, nearest_items (the model's index), fit (taught, measured, saved, loaded), trace, batch; what
rules share: conditions and condition_syntax, constants, features, given, limits, reorder, diverse; explain.

Sources and rules themselves are in `anyrec/sources` and `anyrec/rules`, found like any plugin.
"""
