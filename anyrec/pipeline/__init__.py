"""Retrieve, rank, rerank: stages (the contracts), run (one request through all), ranker, trace, batch.

Sources and rules themselves are in `anyrec/sources` and `anyrec/rules`, found like any plugin.
"""
