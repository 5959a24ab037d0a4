"""Answer losses: which rows, under which conditions, in which tables."""
