"""Filling a store: the dump step, writers, the canary check."""
