"""Synthetic data with planted preferences.

world: the traits of items and the tastes of people.
draw: images of the items.
generate: the tables of users, items and interactions.
diffusion: images of products by a diffusion model.
amazon: a shop with customers, products and reviews, in exact numbers.
"""
