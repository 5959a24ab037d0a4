"""Run one benchmark and put what it prints into docs/benchmarks.md, with commit and machine.

    python scripts/record_benchmark.py store --model embedded --tokens 30000

The first word names a file in benchmarks/, the rest goes to it. Its section of the page is replaced
and the others stay. Run it with nothing else on the machine.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from prove import git, machine

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Written by `scripts/record_benchmark.py`, a section a script in benchmarks/. Each compares the ways
of doing one thing side by side in one run, with medians over rounds; what counts are the ratios,
since the absolute figures are those of the machine named in the section.
"""


def main(words: list[str]) -> int:
    """Run the benchmark, replace its section, and give its exit code."""
    known = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))
    if not words or words[0] not in known:
        print(f"expected one of {', '.join(known)} first, got {words[:1]}", file=sys.stderr)
        return 2
    name, *arguments = words
    script = ROOT / "benchmarks" / f"{name}.py"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        print(done.stdout)
        return done.returncode
    minutes = (time.perf_counter() - start) / 60
    PAGE.write_text(_replaced(name, _section(script, arguments, done.stdout, minutes)))
    print(done.stdout)
    return 0


def _section(script: Path, arguments: list[str], printed: str, minutes: float) -> str:
    said = ast.get_docstring(ast.parse(script.read_text())) or script.stem
    dirty = " (with uncommitted changes)" if git("status", "--porcelain", ":!docs") else ""
    command = shlex.join(["python", f"benchmarks/{script.name}", *arguments])
    return (
        f"## {script.stem}: {said.splitlines()[0]}\n\n"
        f"`{command}`, commit {git('rev-parse', '--short', 'HEAD')}{dirty}, "
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {minutes:.0f} minutes.\n\n"
        f"{printed.strip()}\n"
    )


def _replaced(name: str, section: str) -> str:
    """The page with the section of `name` in its place; sections are in order of their names."""
    page = PAGE.read_text() if PAGE.is_file() else INTRODUCTION
    introduction, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    kept = {one[3:].partition(":")[0]: one for one in sections} | {name: section}
    return "\n".join([introduction.strip() + "\n", *(kept[n].strip() + "\n" for n in sorted(kept))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
