"""Activations from and for other programs."""
