"""Feast: definitions of its features for a dataset, and its feature server over HTTP (docs/feast.md).

types: names and types of Feast for the columns of a dataset.
definitions: a feature repository with entities, feature views and their Parquet files.
server: online features and embeddings over the HTTP API of the feature server.
"""
