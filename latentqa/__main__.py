"""`python -m latentqa` is the command `latentqa`."""

from __future__ import annotations

from latentqa.cli import main

main()
