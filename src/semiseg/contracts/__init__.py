"""Contracts that all other packages share: datasets, tasks, trackers, training methods."""
