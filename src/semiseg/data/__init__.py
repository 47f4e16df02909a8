"""Datasets, splits, views, batch streams and pseudo-labels."""
