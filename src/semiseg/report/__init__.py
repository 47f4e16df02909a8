"""Reports of studies and comparisons of runs."""
