"""Synthetic data with planted preferences."""
