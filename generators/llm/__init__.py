"""Chat requests to an LLM: endpoints, the request log, budgets, prompts, batches."""
