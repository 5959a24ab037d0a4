"""What tests of commands share: a root with a tiny decoder, and calls of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import Called, Run

import latentqa

if TYPE_CHECKING:
    from pipelines.asking.reader import Reader


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an artifact root with a store and a decoder, named `toy`."""
    from ask_calls import make_root  # loads torch

    return make_root(tmp_path_factory.mktemp("ask"))


@pytest.fixture(scope="module")
def reader(root: Path) -> Reader:
    return latentqa.load("toy", root=root, device="cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line: its exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        called = Called(capsys, *words)
        return called.code if isinstance(called.code, int) else 0, called.out, called.err

    return call
