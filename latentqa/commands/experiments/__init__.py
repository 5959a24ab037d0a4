"""Commands that make and run experiments, and evaluate decoders."""
