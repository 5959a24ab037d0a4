"""The made-up device has to be there before torch's first backward pass: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("accelerator_cases.py")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "cases", ["not prove", pytest.param("prove", marks=pytest.mark.prove)], ids=["two", "four"]
)
def test_hot_loops_never_wait_for_the_device(cases: str) -> None:
    """Run tests/accelerator_cases.py: two families, and in `make prove` the other two."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    ran = subprocess.run(
        [*command, "-m", cases, "-o", "timeout=0"],
        capture_output=True,
        text=True,
        check=False,
        cwd=CASES.parent.parent,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
