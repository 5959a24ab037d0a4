"""Files of models: where they are, what they are by digest, and conversions of GGUF."""
