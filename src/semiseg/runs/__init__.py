"""Runs on disk: directories, finished runs, networks taken from other runs."""
