"""Providers of tables: where rows come from. Each is a component (docs/plugins.md).

files: files of this machine and standard input.
http: web servers.
objects: object stores and other file systems by address.
sqlite, duckdb, postgresql: databases.
delta, iceberg: tables of data lakes.
huggingface: datasets of Hugging Face.
kafka: topics of Kafka and Redpanda.
event_log: the log of a server.
"""
