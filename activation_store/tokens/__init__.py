"""Conversations as tokens: what the chat template writes, and the segment of each token."""
