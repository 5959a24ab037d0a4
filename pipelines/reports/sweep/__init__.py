"""The page of a sweep: scaling curves, what they extrapolate to, and its tables."""
