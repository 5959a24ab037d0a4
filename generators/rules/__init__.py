"""Rules that reject a text: form, refusals, repetition, leaks, near-duplicates."""
