"""The steps of an experiment, in order."""
