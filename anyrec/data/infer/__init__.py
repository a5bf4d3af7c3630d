"""The mapping of columns that `anyrec init` finds for tables as they are, with the reasons.

names: names that columns have in the field.
shapes: what the values of a column look like.
profile: tables with the names and shapes of their columns.
parts: which table holds users, items or interactions, and their ids.
features: which columns are features, and of which group.
documents: whether a file is in the own format of the project.
infer_sources: tables to `data.sources` of a config.
"""
