"""Generation: controls, stimuli and questions, by an LLM or drawn by code."""
