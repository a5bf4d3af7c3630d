"""Synthetic data with planted preferences.

world: the traits of items and the tastes of people.
draw: images of the items.
generate: the tables of users, items and interactions.
amazon: a shop with customers, products and reviews, in exact numbers.
"""
