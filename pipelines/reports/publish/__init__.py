"""Publishing a trained decoder: its folder, its model card, and the upload to a hub."""
