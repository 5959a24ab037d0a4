"""The training loop: transformers' Trainer with our loss, its checkpoints, its throughput."""
