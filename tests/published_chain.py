"""The whole chain through the command line, on a tiny model and small published files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from page_figures import unrendered_figures

from latentqa.cli import main

LABELS = 10
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_published(folder: Path) -> Path:
    """Files as LatentQA publishes them: personas in all views, goals in two."""
    folder.mkdir(parents=True)
    persona = [f"persona-job-{i}" for i in range(LABELS)]
    goal = [f"goal-style-{i}" for i in range(LABELS)]
    files: dict[str, Any] = {
        "control": [
            {"control_user": f"Be number {label}", "label": label} for label in persona + goal
        ],
        "stimulus": [
            {
                "control_user": f"Be number {label}",
                "control_model": "Yes.",
                "stimulus_user": "How are you?",
                "label": label,
            }
            for label in persona
        ],
        "system": [
            {"system": f"Be number {label}", "stimulus_user": "What now?", "label": label}
            for label in persona
        ],
        "qa": {
            label: [["Who is it?", f"It is {label}."], ["What next?", f"{label} speaks."]]
            for label in persona + goal
        },
    }
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


CONFIG = """
experiment: tiny
data:
  path: {data}
  splits: {{validation: 0.2, test: 0.3}}
dump: {{model: {model}, layers: [1], store_dtype: float32, shard_rows: 1024, chunk_rows: 256}}
train:
  decoder: {{normalisation: none}}   # as when its losses were recorded
  lora: {{rank: 4, dropout: 0.1}}
  rows_per_batch: 4
  max_steps: 6
  evaluations: 3
  validation_rows: 4
evaluate:
  splits: [test]
  min_controls: 2
  answers: 1
  max_answer_tokens: 4
  bootstrap: 100
runtime: {{device: cpu, threads: 1}}
"""


class Chain:
    """An experiment in a folder of its own, run as a user runs it.

    Args:
        folder: where it lies; made if need be.
        model: folder of the target, for a config of its own.
        config: the config of another chain, instead.
    """

    def __init__(
        self,
        folder: Path,
        model: Path | None = None,
        config: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.root = folder / "root"
        self.document: dict[str, Any] = {}
        """Of an undisturbed run."""
        self.seconds = 0.0
        """That it took."""
        if config is None:
            data = write_published(folder / "data")
            config = folder / "tiny.yaml"
            config.write_text(CONFIG.format(data=data, model=model))
        self.config = config

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `latentqa run` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "latentqa.cli", *self.words(*words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.environment(),
        )

    def words(self, *words: str) -> list[str]:
        """Return the words of `latentqa run`."""
        return ["run", str(self.config), "--root", str(self.root), "--json", *words]

    def environment(self) -> dict[str, str]:
        own = {**os.environ, **QUIET, "PREFECT_HOME": str(self.folder / "prefect")}
        own["LATENTQA_CACHE"] = str(self.folder / "cache")
        own["LATENTQA_ROOT"] = str(self.root)
        own.pop("PREFECT_API_URL", None)
        return own

    def run(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run to the end; the JSON document."""
        done = self.latentqa(*self.words(*words))
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else {"error": done.stderr}

    def latentqa(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call any command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            unrendered_figures(),
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.delenv("PREFECT_API_URL", raising=False)
            for name, value in self.environment().items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                main(words)
        code = caught.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def digests(self) -> dict[str, str]:
        """Digests of each artifact's output by kind and key; of a store, its root digest too."""
        found = {}
        for path in sorted(self.root.glob("*/*/record.json")):
            kind, name = path.parent.parent.name, path.parent.name
            if kind != "report":  # it shows when and how fast things were made
                record = json.loads(path.read_text())
                found[f"{kind}/{name}"] = f"{record['output']} {record.get('store_root')}"
        return found


def cached(document: dict[str, Any]) -> dict[str, bool]:
    return {step["step"]: step["cached"] for step in document["steps"]}
