"""What the steps share: how a step is defined, its inputs, its LLM, its numbers."""
