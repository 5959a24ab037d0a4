"""Asking a trained decoder about any conversation."""
