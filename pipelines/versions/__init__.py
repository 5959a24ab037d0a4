"""Versions of a data set: what makes the next one, whether it is good, and which are kept."""
