"""Comparing evaluations: differences on the questions that all of them were asked."""
