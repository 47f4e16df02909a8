"""Contracts that all other packages share: datasets, trackers, and what a training method gives and gets."""
