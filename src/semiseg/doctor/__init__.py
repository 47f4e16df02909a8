"""Facts about this machine and its data."""
