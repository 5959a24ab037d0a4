"""Reading tasks on a decoder that is trained already, without its experiment file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import RefError
from core.files import storage_errors
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.data_tables import CONVERSATION_STEPS
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment, build_experiment
from pipelines.running.results import RunResult, StepRun
from pipelines.running.runner import Runner
from pipelines.steps.order import every_step
from pipelines.steps.tasks import TASKS, tasks_step

_TRAIN = "train"


def run_tasks_of(
    ref: str,
    relations: Sequence[str],
    *,
    root: Path,
    prompts: bool = False,
    overrides: Sequence[str] = (),
    model: str | None = None,
    adapter: str | None = None,
) -> RunResult:
    """Find or compute the reading tasks of a trained decoder.

    The artifact is the one that an experiment with the same section `tasks` has, and gets the name
    `NAME_tasks`.

    Args:
        ref: a REF of a run, or of a train artifact.
        relations: files of relations, or folders of such.
        root: the artifact root.
        prompts: whether hidden system prompts of the run's own conversations are tasks too.
        overrides: `tasks.FIELD=VALUE` or `runtime.FIELD=VALUE`.
        model: where the target is now; None takes what the decoder was trained with.
        adapter: where the target's own adapter is now, likewise.

    Raises:
        RefError: `ref` names nothing, no decoder, or no conversations where those are needed.
        ConfigError: an override is wrong.
        LatentQAError: the step cannot be computed.
    """
    place = ArtifactRoot(root.expanduser())
    refs = Refs(place)
    found = refs.resolve_set(ref)
    if _TRAIN not in found:
        raise RefError(
            f"{ref}: has {', '.join(found)}, expected a trained decoder (kind train). Run "
            "the experiment up to the step train."
        )
    rows = next((step for step in CONVERSATION_STEPS if step in found), None)
    if rows is None:  # those that the decoder was trained on, if they are here
        made_from = found[_TRAIN].identity["inputs"].get("conversations")
        own = place.find(made_from["key"], *CONVERSATION_STEPS) if made_from else None
        if own is not None:
            rows, found = own.kind, {**found, own.kind: own}
    if prompts and rows is None:
        raise RefError(
            f"{ref}: has {', '.join(found)}, expected conversations as well, for their "
            "hidden prompts. Name the run instead of the decoder."
        )
    named = refs.get(ref)
    experiment = _experiment(
        f"{_plain_name(named.name)}_{TASKS}" if named is not None else TASKS,
        found[_TRAIN],
        {"relations": list(relations), **({"prompts": {}} if prompts else {})},
        overrides,
        model=model,
        adapter=adapter,
    )
    baselines = [name for name in found if name.startswith(f"{_TRAIN}_")]
    step = tasks_step(baselines, rows)
    runner = Runner(experiment, place, steps=[step])
    known = {one.name: one for one in every_step()}
    for name in step.inputs.values():
        # this experiment has no section that says where its inputs were made; their records do
        made = replace(known[name], locations=partial(_recorded_locations, found[name]))
        runner.runs[name] = StepRun(step=made, artifact=found[name], cached=True, seconds=0.0)
    return runner.prepare_and_run()


def _recorded_locations(artifact: Artifact, experiment: Experiment) -> dict[str, Any]:
    """Return where the inputs of a finished step lay, whatever experiment asks."""
    return dict(artifact.record["locations"])


def write_result_rows(measured: Mapping[str, Artifact], path: Path) -> None:
    """Write the numbers of several artifacts `tasks` as one Parquet file, with the column `run`.

    Args:
        measured: artifact by REF.
        path: of the file.

    Raises:
        DamagedError: the numbers of an artifact cannot be read.
        StorageError: the file cannot be written.
    """
    import pyarrow as pa

    from evaluators.measure.result_files import RESULTS, RESULTS_FILE, read_rows, write_table

    rows = [
        {"run": ref, **row}
        for ref, artifact in measured.items()
        for row in read_rows(artifact.checked().data / RESULTS_FILE)
    ]
    with storage_errors(path):
        write_table(path, rows, pa.schema([("run", pa.string()), *RESULTS]))


def _experiment(
    name: str,
    train: Artifact,
    tasks: dict[str, Any],
    overrides: Sequence[str],
    *,
    model: str | None,
    adapter: str | None,
) -> Experiment:
    """Build an experiment that has the decoder's target and the tasks, and no rows of its own."""
    from decoder.binding import read_sidecar

    where = train.record["locations"]
    _, binding = read_sidecar(train.checked().data)
    tree: dict[str, Any] = {
        "experiment": name,
        "data": {"path": "."},
        "dump": {
            "model": model or where["model"],
            "adapter": adapter or where["adapter"],
            **binding.template,
        },
        TASKS: tasks,
    }
    return build_experiment(tree, f"decoder {train.short}", overrides)


def _plain_name(name: str) -> str:
    """Replace the characters that a name of an experiment may not have."""
    return re.sub(r"[^a-z0-9_-]", "-", name.lower()).lstrip("_-") or TASKS
