"""Calls of the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from latentqa.cli import main

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line: its exit code, stdout and stderr."""


class Called:
    """What a command printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(words)
        self.code = caught.value.code
        self.out, self.err = capsys.readouterr()

    def json(self) -> Any:
        """Return the document on stdout."""
        return json.loads(self.out)

    def refused(self) -> str:
        """Return the one line of a user's error."""
        assert (self.code, self.out) == (2, "")
        assert self.err.count("\n") == 1
        return self.err
