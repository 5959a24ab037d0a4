"""Evaluation of a decoder: reading, robustness, reading tasks, steering, and the statistics."""
