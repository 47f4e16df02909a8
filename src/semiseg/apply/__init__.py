"""Finished runs applied to pictures and datasets."""
