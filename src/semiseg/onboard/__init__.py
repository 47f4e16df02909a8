"""Datasets made of own folders of pictures."""
