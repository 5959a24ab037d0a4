"""The fixture through which a proof reports its figures (scripts/prove.py makes the page)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" or report.skipped:
        item.outcome = report.outcome  # type: ignore[attr-defined]


@pytest.fixture
def proved(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Make a dict for figures.

    What is in it at the end stands on the page, also after a failure.
    """
    figures: dict[str, Any] = {}
    start = time.time()
    yield figures
    if path := os.environ.get("LATENTQA_PROOFS"):
        line = {
            "name": _name(request),
            "outcome": getattr(request.node, "outcome", "unknown"),
            "seconds": time.time() - start,
            "figures": figures,
        }
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


def _name(request: pytest.FixtureRequest) -> str:
    """Return the first line of the proof's docstring, with what it was run on."""
    said = (request.function.__doc__ or request.node.name).strip().splitlines()[0]
    run_on = getattr(request.node, "callspec", None)
    words = [] if run_on is None else [f"{name} {value}" for name, value in run_on.params.items()]
    return f"{said} ({', '.join(words)})" if words else said
