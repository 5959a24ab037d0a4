"""`make prove`: the full counts that the test-suite does at small ones; writes docs/proofs.md.

    make prove                      all of them
    make prove ARGS="-k corrupt"    some; the page keeps what it had of the others

Each proof is a test marked `prove` that reports its figures through the fixture `proved`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pages import ROOT, provenance, replace_sections

INTRODUCTION = """# Proofs

Written by `make prove`: the full counts behind what the documentation promises. Each section is one
proof, with its outcome, commit and machine. A failed proof is marked as failed, one whose data was
missing as skipped.
"""


def main(words: list[str]) -> int:
    """Run the proofs, write the page, and give pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "proofs.jsonl"
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-m", "prove", "--timeout=5400", "-rs", *words],
            cwd=ROOT,
            env={**os.environ, "LATENTQA_PROOFS": str(found)},
        )
        lines = found.read_text().splitlines() if found.is_file() else []
    proofs = [json.loads(line) for line in lines]
    sections = {proof["name"]: _section(proof) for proof in proofs}
    replace_sections(ROOT / "docs" / "proofs.md", INTRODUCTION, sections)
    return code


def _section(proof: dict[str, Any]) -> str:
    out = [f"**{proof['outcome']}**, {provenance(proof['seconds'])}.", ""]
    if proof["figures"]:
        out += ["| figure | value |", "|---|---|"]
        out += [f"| {name} | {value} |" for name, value in proof["figures"].items()]
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
