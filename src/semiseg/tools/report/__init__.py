"""``semiseg report``: many runs as one page: means, spreads, differences, pictures."""
