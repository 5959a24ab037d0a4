"""The made-up device has to be there before torch's first backward pass: a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import chain
import pytest

CASES = Path(__file__).with_name("accelerator_cases.py")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "cases", ["not prove", pytest.param("prove", marks=pytest.mark.prove)], ids=["two", "four"]
)
def test_hot_loops_never_wait_for_the_device(cases: str, tmp_path: Path) -> None:
    """Run tests/accelerator_cases.py: two families, and in `make prove` the rest for four."""
    said = tmp_path / "said.txt"
    child = chain.fork_context().Process(target=run_cases, args=(cases, said))
    child.start()
    child.join()
    assert child.exitcode == 0, said.read_text()[-4000:]


def run_cases(cases: str, said: Path) -> None:
    """Run the cases in this process, which has not gone backward yet, and end it."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(CASES.parent.parent)
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=0", "-m", cases]
    sys.exit(pytest.main([*words, str(CASES)]))
