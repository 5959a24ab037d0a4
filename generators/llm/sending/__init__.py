"""Sending chat requests: the openai client, retries, the rate limit, the budget."""
