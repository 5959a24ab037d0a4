"""Experiment files that come with the package: `latentqa init --list` names them."""
