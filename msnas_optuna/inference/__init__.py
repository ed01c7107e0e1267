"""Uses of a trained detector: predictions, export, sample pictures."""
