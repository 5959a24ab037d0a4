"""Written answers, their metrics, and their judgement by an LLM."""
