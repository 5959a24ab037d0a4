"""The quality of a finished data set: flags, LLM judgements, statistics."""
