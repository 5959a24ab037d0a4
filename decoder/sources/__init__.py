"""Sources of readings: live activations, conversations, chosen tokens; and how usual they are."""
