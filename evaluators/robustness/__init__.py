"""Robustness: changed rows, held-out categories, a fine-tuned target."""
