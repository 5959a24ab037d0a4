"""The artifact root: identity, records, names, locks, garbage collection."""
