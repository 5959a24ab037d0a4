"""Experiment config, step identity, artifacts, steps, reports and the command line."""
