"""Sources of readings: live activations, conversations, chosen tokens; OOD detection."""
