"""The base of every other package: errors, whole files, digests, configs, the two tables."""
