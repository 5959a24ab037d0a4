"""What a decoder is worth: reading, its controls, and the statistics."""
