"""Commands that use a trained decoder: to ask, to map, to steer."""
