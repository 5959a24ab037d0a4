"""The order of the files: long ones first, so that no worker ends with one alone.

What the test files import stays to the end, so that garbage collections need not look at it.

Nothing waits for the disk: tests kill processes, whose writes the system keeps, never the machine.

Processes that tests start find the checkout's packages first: tests/ has folders of their names.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_figures import unrendered_figures

os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
)

pytest.MonkeyPatch().setattr(os, "fsync", lambda handle: None)
gc.disable()
LONG = (
    *("test_accelerator.py", "test_small_quickstart.py", "test_flows.py", "test_operate.py"),
    *("test_chain.py", "test_sharding.py", "test_training.py", "test_control.py"),
    *("test_crossed_targets.py", "test_sweep.py", "test_hidden_bit.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the long files to the front; the order within a file stays."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Begin to collect garbage, leaving out what the test files have imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def unrendered() -> Iterator[None]:
    """Let figures of pages be drawn and not rendered, where words and tables are tested."""
    with unrendered_figures():
        yield
