"""Run benchmarks and put what they print into docs/benchmarks.md, with commit and machine.

    python scripts/record_benchmark.py                      # all, half an hour on 2 cores
    python scripts/record_benchmark.py --list               # which there are, and their minutes
    python scripts/record_benchmark.py store profiles       # those alone, all runs of a script
    python scripts/record_benchmark.py --tiny               # none recorded: does each script run?

A section of the page is replaced and the others stay. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import ast
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass

from pages import ROOT, provenance, replace_sections

INTRODUCTION = """# Benchmarks

Each section is one run of a script in `benchmarks/`. It compares several ways of doing one thing
side by side in one run, with medians over rounds. Compare the ratios; the absolute figures depend
on the machine named in the section. `python scripts/record_benchmark.py` measures everything again
and writes this page (half an hour on a quiet machine).
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a script in benchmarks/."""

    script: str
    words: str
    """Its arguments."""
    minutes: int
    """How long it takes on 2 cores, about."""
    tiny: str
    """Arguments with which it takes seconds."""
    title: str = ""
    """Tells two runs of one script apart."""

    @property
    def heading(self) -> str:
        """Title of the section."""
        return f"{self.script}, {self.title}" if self.title else self.script


RUNS = (
    Run("answering", "", 1, "--prefix 8 --tokens 2 --recomputed 1"),
    Run(
        "llm_requests",
        "--slots 100 --rounds 60 --repeats 1",
        6,
        "--slots 4 --rounds 2 --latency 0.1 --repeats 1",
    ),
    Run("orchestration", "", 4, "--quickstart-s 600 --rounds 1"),
    Run("fan_out", "--rows 200", 3, "--rows 4 --workers 1"),
    Run("profiles", "--rows 100000", 1, "--rows 100"),
    Run(
        "store",
        "--tokens 8000 --rounds 3",
        4,
        "--tokens 600 --rounds 1 --shards 2 --more-rounds 1",
        title="embedded model",
    ),
    Run(
        "store",
        "--random 4x64 --tokens 200000 --rounds 5",
        4,
        "--random 2x64 --tokens 2000 --rounds 1 --shards 2 --more-rounds 1",
        title="tiny model",
    ),
    Run(
        "store",
        "--random 2x4096 --tokens 600 --rounds 5 --shards 8 --more-rounds 9",
        3,
        "--random 2x64 --tokens 600 --rounds 1 --shards 2 --more-rounds 1",
        title="a model of 8B's width",
    ),
    Run("store_codecs", "--tokens 8192", 2, "--random 2x64 --tokens 512"),
    Run("store_memory", "--plot docs/images/store_memory.png", 2, "--tokens 512"),
    Run("steering", "", 6, "--words 4 --tokens 2 --repeats 1"),
    Run("training", "--profiles --rounds 1", 4, "--profiles --steps 1", title="profiles"),
)
ON_A_RUN = (Run("training", "--rounds 1", 5, "--steps 1 --rows 1", title="published views"),)
"""Those that need a finished dump: `latentqa run experiments/latentqa_eval.yaml --until dump`."""
ON_A_GPU = (Run("gpu", "", 10, "--shape 2x64 --tokens 600 --rows 1 --steps 1"),)
"""Those that need a GPU: recorded where they are named."""


def main() -> int:
    """Run the benchmarks asked for, replace their sections, and give 1 where one fails."""
    every = (*RUNS, *ON_A_RUN, *ON_A_GPU)
    known = sorted({run.script for run in every})
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=", ".join(known))
    parser.add_argument("--list", action="store_true", help="print the runs and their minutes")
    parser.add_argument("--tiny", action="store_true", help="run each in seconds; record nothing")
    parser.add_argument("--root", help="artifact root with a dump of latentqa_eval, for the rest")
    words = parser.parse_args()
    if unknown := set(words.scripts) - set(known):
        parser.error(f"expected any of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    wanted = set(words.scripts) or {run.script for run in (*RUNS, *ON_A_RUN)}
    runs = [run for run in every if run.script in wanted]
    if words.root is None:
        for run in set(runs) & set(ON_A_RUN):
            print(f"{run.heading}: left out; needs --root with a dump of latentqa_eval.")
        runs = [run for run in runs if run not in ON_A_RUN]
    if words.list:
        for run in runs:
            print(f"{run.minutes:3d} min  {run.heading}: {run.words}")
        print(f"{sum(run.minutes for run in runs):3d} min in all")
        return 0
    failed = [run.heading for run in runs if not record(run, tiny=words.tiny, root=words.root)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def record(run: Run, *, tiny: bool, root: str | None) -> bool:
    """Run one benchmark and replace its section; tell whether it ended well."""
    arguments = shlex.split(run.tiny if tiny else run.words)
    if run in ON_A_RUN:
        arguments += ["--root", str(root)]
    script = ROOT / "benchmarks" / f"{run.script}.py"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    print(f"{run.heading}\n\n{done.stdout}", flush=True)
    if done.returncode or tiny:
        return not done.returncode
    about = (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0]
    command = shlex.join(["python", f"benchmarks/{script.name}", *arguments])
    section = (
        f"{about}\n\n`{command}`, {provenance(time.perf_counter() - start)}.\n\n"
        f"{done.stdout.strip()}"
    )
    replace_sections(ROOT / "docs" / "benchmarks.md", INTRODUCTION, {run.heading: section})
    return True


if __name__ == "__main__":
    sys.exit(main())
