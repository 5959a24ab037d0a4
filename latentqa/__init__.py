"""Ask a language model's hidden activations open questions."""
