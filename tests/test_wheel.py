"""The wheel: every package and every file beside the code is in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("pipelines", "generators", "activation_store", "decoder", "trainers", "evaluators")


def test_a_wheel_holds_all_that_the_rooms_hold(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build writes beside what it builds
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / room, source / room, ignore=ignored)
    for name in ("flows.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and path.parent != source
    }
    command = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", ".")
    done = subprocess.run(
        [sys.executable, *command, "-w", tmp_path], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {*expected, "flows.py"} <= found, sorted(expected - found)
