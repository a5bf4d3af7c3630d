"""The data doctor: findings on the quality of a dataset."""
