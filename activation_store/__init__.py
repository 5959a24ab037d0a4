"""The target model and the chunked store of its activations."""
