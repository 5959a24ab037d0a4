"""Run one benchmark and put what it prints into docs/benchmarks.md, with commit and machine.

    python scripts/record_benchmark.py store --model embedded --tokens 30000

The first word names a file in benchmarks/, the rest goes to it; `--title WORDS` before it tells two
runs of one script apart. Its section of the page is replaced and the others stay. Run it with
nothing else on the machine.
"""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
import time

from pages import ROOT, provenance, replace_sections

INTRODUCTION = """# Benchmarks

Written by `scripts/record_benchmark.py`, a section a run of a script in benchmarks/. Each compares
ways of doing one thing side by side in one run, with medians over rounds; what counts are the
ratios, since the absolute figures are those of the machine named in the section.
"""


def main(words: list[str]) -> int:
    """Run the benchmark, replace its section, and give its exit code."""
    title = None
    if words[:1] == ["--title"]:
        title, words = words[1], words[2:]
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
    print(done.stdout)
    if done.returncode:
        return done.returncode
    about = (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0]
    command = shlex.join(["python", f"benchmarks/{script.name}", *arguments])
    section = (
        f"{about}\n\n`{command}`, {provenance(time.perf_counter() - start)}.\n\n"
        f"{done.stdout.strip()}"
    )
    heading = f"{name}, {title}" if title else name
    replace_sections(ROOT / "docs" / "benchmarks.md", INTRODUCTION, {heading: section})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
