"""The commands of `latentqa`, a file a family."""
