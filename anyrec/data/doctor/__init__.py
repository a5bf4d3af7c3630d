"""The data doctor: findings about a dataset before a model is trained on it.

id_checks: ids of missing values, tests and floats, and categories that are ids.
table_checks: what the tables show as they are.
value_codes: the values of a feature as codes.
near_duplicates: items with the same text or image, or nearly the same.
leak_checks: features that reveal the outcome.
split_checks: whether the split allows conclusions.
examine: all findings together.
"""
