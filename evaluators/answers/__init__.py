"""Written answers and what they are worth."""
