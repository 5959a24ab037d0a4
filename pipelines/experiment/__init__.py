"""Experiment files: YAML in, a frozen config out."""
