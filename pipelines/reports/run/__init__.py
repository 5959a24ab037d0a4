"""The report of a run: what it shows, read from artifacts, and its page, figures and tables."""
