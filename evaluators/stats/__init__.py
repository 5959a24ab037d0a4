"""Means and differences over controls, with bootstrap intervals."""
