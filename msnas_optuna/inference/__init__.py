"""What is done with a trained detector: predictions, export, sample pictures."""
