"""Timings of training steps and data pipelines."""
