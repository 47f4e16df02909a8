"""What networks learn to predict: how it is predicted, measured and drawn."""
