"""The plan of three million rows: memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "plan_rows.py"
LENGTH = 200
MOST_BYTES, MOST_SECONDS, MOST_TO_OPEN = 4e9, 300, 10


@pytest.mark.parametrize("rows", [1000, pytest.param(3_000_000, marks=pytest.mark.prove)])
@pytest.mark.timeout(3000)
def test_planning(rows: int, proved: dict[str, Any], tmp_path: Path) -> None:
    """Millions of rows are planned within 4 GB and five minutes, and opened within 10 seconds"""
    words = [sys.executable, str(SCRIPT), str(rows), str(LENGTH), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    proved["tokens"], proved["shards"] = found["tokens"], found["shards"]
    proved["most memory of the process's own, GB"] = round(found["bytes"] / 1e9, 2)
    proved["planning, seconds of CPU"] = round(found["seconds"], 1)
    proved["opening, seconds of CPU"] = round(found["opened"], 2)
    assert found["tokens"] == rows * LENGTH
    assert found["bytes"] < MOST_BYTES
    assert found["seconds"] < MOST_SECONDS
    assert found["opened"] < MOST_TO_OPEN
