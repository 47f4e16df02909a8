"""Divisions of datasets: rules, published lists, files."""
