"""benchmarks/gpu.py runs, at a tiny size and without a GPU: each part prints its numbers."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import decoders
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_part_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("gpu")
    tiny = ["--shape", "2x64", "--tokenizer", decoders.model().ref, "--rows", "1", "--steps", "1"]
    module.main([*tiny, "--tokens", "600"])
    printed = capsys.readouterr().out
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", printed, flags=re.MULTILINE))
    for part in ("bare forward", "into a committed store", "questions/s, 8 a row", "tokens/s"):
        assert float(rows[part].replace(",", "")) > 0
    assert rows["peak memory by the plan"].endswith("B")
    assert re.search(r"answers/s, 64 at once of 24 tokens: [\d.,]+", printed)
