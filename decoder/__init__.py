"""The decoder: a copy of the target with a LoRA adapter that reads activations."""
