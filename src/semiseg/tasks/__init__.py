"""Tasks, the kinds of prediction that networks learn: predicting, measuring and drawing."""
