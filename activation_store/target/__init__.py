"""The target model: loading it, capture of activations, its replies, swapped conversations."""
