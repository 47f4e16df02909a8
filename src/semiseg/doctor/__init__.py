"""Inspection of the installation, the machine and the data on it, for ``semiseg doctor``."""
