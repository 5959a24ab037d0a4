"""Batches, loss and the training loop of the decoder."""
