"""Rows, replies, tables of vectors and experiment files, changed thousands of times by seeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_steps import FakeSteps
from mutations import ImportedVectors, check_reply, check_rows, check_yaml

import pipelines.running.runner

MUTATIONS = 2000
FIRST = int(os.environ.get("LATENTQA_FIRST_SEED", "0"))
"""Seed to go on from, where a proof is run in parts."""


@pytest.mark.prove
@pytest.mark.parametrize("what", ["rows", "replies", "vectors", "experiments"])
def test_mutations(
    what: str, proved: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutated inputs give a result or a one-line error, and intact rows are kept"""
    steps = FakeSteps(tmp_path / "log", pieces=1)
    monkeypatch.setattr(pipelines.running.runner, "steps_for", lambda experiment: steps.table())
    checks: dict[str, Callable[[], Callable[[int], None]]] = {
        "rows": lambda: partial(check_rows, folder=tmp_path),
        "replies": lambda: partial(check_reply, folder=tmp_path),
        "vectors": lambda: ImportedVectors(tmp_path).check,
        "experiments": lambda: partial(check_yaml, folder=tmp_path),
    }
    check = checks[what]()
    for seed in range(FIRST, MUTATIONS):
        check(seed)
        proved["mutations, seeds from 0"] = seed + 1
