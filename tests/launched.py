"""What processes that were started together do in tests; imports nothing heavy."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.progress import Progress


def tells(folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Tell progress, and leave the process's number behind."""
    rank = os.environ["RANK"]
    (folder / rank).write_text(os.environ["WORLD_SIZE"])
    for done in (1, 2):
        progress(done * 10 + int(rank), 20)
    return {"rank": int(rank)}


def fails(*, progress: Progress) -> dict[str, Any]:
    """Return the second process finds a mistake, the first waits for it."""
    if os.environ["RANK"] == "1":
        raise ConfigError("a mistake.")
    time.sleep(600)
    return {}


def dies(*, progress: Progress) -> dict[str, Any]:
    """Return the second process is killed."""
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    time.sleep(600)
    return {}


def waits(folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Write the process's id, and never end."""
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    time.sleep(600)
    return {}
