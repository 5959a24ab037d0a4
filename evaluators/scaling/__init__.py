"""Scaling curves: what several trainings of one experiment measured, along the settings varied."""
