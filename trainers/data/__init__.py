"""What one training step sees: rows, the inputs of each, and the order of an epoch."""
