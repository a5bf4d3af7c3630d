"""Providers of tables: where rows come from. Each is a component (docs/plugins.md).

files: files of this machine and standard input.
sqlite, duckdb, postgresql: databases.
"""
