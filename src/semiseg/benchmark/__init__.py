"""Timings of training steps and of reading images."""
