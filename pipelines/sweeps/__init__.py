"""Sweeps: their points run, their results collected."""
