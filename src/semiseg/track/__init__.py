"""Trackers of logged numbers and pictures."""
