"""Steering: the decoder's gradient with respect to activations, and what is done with it."""
