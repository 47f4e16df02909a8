"""The training loop, resumable steps and checkpoints."""
