"""The training loop, resumable steps, evaluation and checkpoints."""
