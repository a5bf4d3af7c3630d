"""Checks of tables as a whole, after their formats have checked single values.

validate: duplicate ids, ids without a record, empty parts, labels and weights out of range.
temporal_roles: whether a temporal feature holds numbers, timestamps or item ids.
row_limits: the most rows, and the fewest interactions of a user and an item.
request_tables: the checks of a request, whose parts may be empty and whose ids may be unknown.
config_fits: whether a config and a dataset fit together.
"""
