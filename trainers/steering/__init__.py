"""An adapter of the target, trained to steer it: through the decoder, or on replies."""
