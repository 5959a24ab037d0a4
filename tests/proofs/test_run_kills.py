"""SIGKILL at every change of the file system of a whole small run, step by step.

Each step is killed before each of its changes, those of the cache of model digests included, from
the root that an undisturbed run had when the step began; it then has to end as it does undisturbed.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import tiny
from file_changes import Changes
from http_endpoint import ScriptedEndpoint
from published_chain import CONFIG, QUIET, write_published

from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import load_experiment
from pipelines.running.request import RunRequest
from pipelines.steps.order import steps_for

WHOLE_RUNS = 29
"""Of the killed steps, each so manieth is followed by the rest of the run."""

CONTROL = """control: calm
description: The assistant is calm.
questions:
  - question: What is its mood?
    answer: It is calm.
"""

EVERY_STEP = """
experiment: tiny
generate:
  endpoint: &endpoint {{model: scripted, base_url: "{address}"}}
  conversations:
    kinds: {{persona: {{controls: 10, views: [control, stimulus]}}}}
    splits: {{validation: 0.2, test: 0.4}}
  questions: {{per_control: 2}}
complete: {{max_tokens: 4}}
quality: {{endpoint: *endpoint, sample: 4}}
dump: {{model: {model}, layers: [1], store_dtype: float32, shard_rows: 1024, chunk_rows: 256}}
train: {{lora: {{rank: 2}}, rows_per_batch: 4, max_steps: 2, evaluations: 2, validation_rows: 2}}
evaluate:
  splits: [test]
  min_controls: 2
  answers: 1
  max_answer_tokens: 4
  bootstrap: 100
  baselines: [prior, visible_text]
  judge: {{endpoint: *endpoint}}
robustness: {{min_controls: 2, bootstrap: 100, strengths: [1.0], shift_steps: 1, max_controls: 2}}
tasks: {{prompts: {{max_controls: 4, answer_tokens: 4}}, bootstrap: 100, min_subjects: 2}}
control:
  controls: [{control}]
  methods: [prompting, vector, weights]
  strengths: [1.0]
  train_prompts: 4
  validation_prompts: 2
  test_prompts: 2
  max_tokens: 3
  weights: {{steps: 2}}
  bootstrap: 100
runtime: {{device: cpu, threads: 1}}
"""

IMPORTED = ("conversations", "questions", "dump", "train", "evaluate", "report")
GENERATED = (
    *("conversations", "questions", "complete", "quality", "dump", "train", "train_prior"),
    *("train_visible_text", "evaluate", "judge", "robustness", "tasks", "control", "report"),
)


class Undisturbed:
    """An experiment's root before and after each step of a run that nothing disturbs.

    Args:
        folder: to keep the roots in.
        config: the experiment file.
    """

    def __init__(self, folder: Path, config: Path) -> None:
        self.config = config
        self.steps = [step.name for step in steps_for(load_experiment(config))]
        self.changes: dict[str, int] = {}
        """How many changes of the file system each step makes."""
        self._folder = folder
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # a server that has imported torch forks each process in no time
        self._context.set_forkserver_preload(
            ["trainers.training", "evaluators.evaluation", "pipelines.reports.run.report", "peft"]
        )

    def after(self, step: str) -> Path:
        """Return the root as `step` leaves it."""
        place = self._folder / step
        if step not in self.changes:
            shutil.copytree(self.before(step), place, symlinks=True)
            count = self.run(place, step)
            assert count
            self.changes[step] = count
        return place

    def before(self, step: str) -> Path:
        """Return the root as the step before `step` leaves it."""
        if number := self.steps.index(step):
            return self.after(self.steps[number - 1])
        empty = self._folder / "empty"
        empty.mkdir(parents=True, exist_ok=True)
        return empty

    def run(self, place: Path, until: str, die_at: int = 0) -> int | None:
        """Run in `place`, in a process; return the number of changes, or None if it was killed."""
        read, write = self._context.Pipe(duplex=False)
        last = None if until == self.steps[-1] else until
        process = self._context.Process(
            target=_run, args=(str(self.config), str(place), last, die_at, write), daemon=True
        )
        process.start()
        write.close()
        process.join(900)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        return read.recv() if process.exitcode == 0 else None


def _run(config: str, place: str, until: str | None, die_at: int, write: Any) -> None:
    os.environ.update(QUIET, LATENTQA_CACHE=f"{place}/cache")
    changes = Changes(Path(place), die_at)
    RunRequest(config=config, root=f"{place}/root", until=until).run()
    write.send(changes.count)


def state(place: Path, *, names: bool = True) -> dict[str, str]:
    """Return each artifact's key and output, and every file below the root that is no lock.

    Args:
        place: folder of the root.
        names: count the files of names too.
    """
    root = place / "root"
    found = {}
    for artifact in ArtifactRoot(root).artifacts():
        assert artifact.damaged_files() == []
        # a report says when things were made
        output = "" if artifact.kind == "report" else artifact.output
        found[artifact.short] = f"{artifact.key} {output}"
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    passed_over = {"locks"} if names else {"locks", "refs"}
    kept = sorted(str(path) for path in files if path.parts[0] not in passed_over)
    return {**found, "files": "\n".join(path for path in kept if not _is_left_over(Path(path)))}


def _is_left_over(path: Path) -> bool:
    """Whether gc removes it: what a killed write of a name or of the root's mark leaves."""
    return path.name.startswith(".") and path.parts[0] in ("refs", path.name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Undisturbed]]:
    """Make both experiments, what they read, and the endpoint for as long as it is needed."""
    folder = tmp_path_factory.mktemp("sources")
    model, control = tiny.save(folder / "model"), folder / "calm.yaml"
    control.write_text(CONTROL)
    data = write_published(folder / "data")
    with ScriptedEndpoint() as endpoint:
        made = {"model": model, "control": control, "address": endpoint.base_url, "data": data}
        found = {}
        for name, text in (("imported", CONFIG), ("generated", EVERY_STEP)):
            config = folder / f"{name}.yaml"
            config.write_text(text.format(**made))
            found[name] = Undisturbed(folder / name, config)
        yield found


@pytest.mark.parametrize(("name", "steps"), [("imported", IMPORTED), ("generated", GENERATED)])
def test_the_steps_are_those_of_the_experiments(
    name: str, steps: tuple[str, ...], undisturbed: dict[str, Undisturbed]
) -> None:
    assert undisturbed[name].steps == list(steps)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("name", "step"),
    [("imported", step) for step in IMPORTED] + [("generated", step) for step in GENERATED],
)
def test_a_kill_at_every_change(
    name: str,
    step: str,
    undisturbed: dict[str, Undisturbed],
    proved: dict[str, Any],
    tmp_path: Path,
) -> None:
    """A small run killed before any single change of a step resumes to the same result"""
    runs, killed = undisturbed[name], tmp_path / "killed"
    wanted = state(runs.after(step))
    total = runs.changes[step]
    for number in range(1, total + 1):
        shutil.copytree(runs.before(step), killed, symlinks=True)
        assert runs.run(killed, step, number) is None
        state(killed)  # nothing that is there is damaged
        runs.run(killed, step)
        assert state(killed) == wanted, f"killed before change {number} of {total}"
        if number % WHOLE_RUNS == 0:
            runs.run(killed, runs.steps[-1])
            whole = state(runs.after(runs.steps[-1]), names=False)
            assert state(killed, names=False) == whole, f"killed before change {number} of {total}"
        shutil.rmtree(killed)
        proved["kills, each before another change of the file system"] = number
