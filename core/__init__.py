"""What every other package stands on: errors, files, digests, the config base, the tables."""
