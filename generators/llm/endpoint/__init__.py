"""The endpoint that an experiment names: its config, address, key, prices, and our own server."""
