"""Pages that are written section by section: what was run again is replaced, the rest stays."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def replace_sections(page: Path, introduction: str, sections: Mapping[str, str]) -> None:
    """Write `page` with these sections in place of those of the same titles.

    Args:
        page: a Markdown file; made if need be.
        introduction: what stands before the sections, title included.
        sections: text by title; sections stand in the order of their titles.
    """
    old = page.read_text() if page.is_file() else ""
    kept = {}
    for section in re.split(r"^## ", old, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        kept[title] = text.strip()
    kept.update({title: text.strip() for title, text in sections.items()})
    written = [f"## {title}\n\n{kept[title]}\n" for title in sorted(kept)]
    page.write_text("\n".join([introduction.strip() + "\n", *written]))


def provenance(seconds: float) -> str:
    """Commit, date, machine and how long it took, in words."""
    # the pages themselves are no change of what was run
    dirty = " (with uncommitted changes)" if _git("status", "--porcelain", ":!docs") else ""
    return (
        f"commit {_git('rev-parse', '--short', 'HEAD')}{dirty}, {datetime.now(UTC):%Y-%m-%d}, "
        f"{_machine()}, {_time(seconds)}"
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        cpu = names[0] if names else cpu
    return f"{os.cpu_count()} cores ({cpu}), Python {platform.python_version()}"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()
