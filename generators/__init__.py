"""Datasets: schema, import and export, generation by an LLM, quality. Imports no torch."""
