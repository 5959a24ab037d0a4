"""Experiment files: parse YAML into a frozen config."""
