"""`make prove`: the full counts that the test-suite does at small ones; writes docs/proofs.md.

Each proof is a test marked `prove` that reports its figures through the fixture `proved`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "proofs.md"

INTRODUCTION = """# Proofs

Written by `make prove`: the full counts behind what the documentation promises. A proof that
failed is said to have failed; one whose data was not at hand is said to have been left out.
"""


def main(words: list[str]) -> int:
    """Run the proofs, write the page, and give pytest's exit code."""
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "proofs.jsonl"
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-m", "prove", "--timeout=5400", "-rs", *words],
            cwd=ROOT,
            env={**os.environ, "LATENTQA_PROOFS": str(found)},
        )
        lines = found.read_text().splitlines() if found.is_file() else []
    if lines:
        PAGE.write_text(page([json.loads(line) for line in lines], time.time() - start))
    return code


def page(proofs: list[dict], seconds: float) -> str:
    """The page for what the proofs reported."""
    dirty = " (with uncommitted changes)" if git("status", "--porcelain") else ""
    out = [
        INTRODUCTION,
        f"Commit {git('rev-parse', '--short', 'HEAD')}{dirty}, "
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {seconds / 60:.0f} minutes.",
        "",
    ]
    for proof in proofs:
        out += [
            f"## {proof['name']}",
            "",
            f"**{proof['outcome']}** in {proof['seconds']:.0f} s",
            "",
        ]
        out += ["| figure | value |", "|---|---|"] if proof["figures"] else []
        out += [f"| {name} | {value} |" for name, value in proof["figures"].items()]
        out += [""] if proof["figures"] else []
    return "\n".join(out)


def machine() -> str:
    """The machine in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        cpu = names[0] if names else cpu
    return f"{os.cpu_count()} cores ({cpu}), Python {platform.python_version()}"


def git(*words: str) -> str:
    """What git says."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
