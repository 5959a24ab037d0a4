"""benchmarks/steering.py runs, at a tiny size, and compares every way with plain generation."""

from __future__ import annotations

import importlib
from pathlib import Path

import decoders
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_way_is_compared_with_plain_generation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("steering")
    words = ["--model", decoders.model().ref, "--layer", "2", "--words", "3", "--tokens", "2"]
    module.main([*words, "--repeats", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    assert [row[0].strip("| ") for row in rows[2:]] == [
        "plain",
        "averaged vector",
        "gradient at the prompt",
        "gradient at each token",
    ]
    assert rows[2][2].strip("| ") == "1.00"
    assert all(float(row[1]) > 0 for row in rows[2:])
