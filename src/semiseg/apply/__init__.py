"""Use of finished runs on pictures and datasets."""
