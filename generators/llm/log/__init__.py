"""The log of all LLM requests of an artifact root, and who is asking which of them."""
