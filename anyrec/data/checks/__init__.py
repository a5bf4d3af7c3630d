"""Checks of data that was read: ids, roles of temporal features, row limits, fit with the config."""
