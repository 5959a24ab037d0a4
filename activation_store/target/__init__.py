"""The target model: its files, loading it, tokens, capture, replies."""
