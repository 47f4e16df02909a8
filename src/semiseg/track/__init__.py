"""Where logged numbers and pictures go."""
