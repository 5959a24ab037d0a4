"""The Python API: what `import latentqa` offers a script or a notebook.

Each function imports what it needs when it is called, so that `import latentqa` is quick and loads
neither torch nor transformers nor Prefect.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activation_store.read.reader import ActivationStore
    from core.records.steering_control import SteeringControl
    from pipelines.artifacts.refs import Refs
    from pipelines.asking.reader import Reader
    from pipelines.asking.steering import SteeredTarget, SteeringWay
    from pipelines.experiment.config import Experiment
    from pipelines.reports.sweep.findings import SweepFindings
    from pipelines.running.plan import StepPlan
    from pipelines.running.request import RunRequest
    from pipelines.running.results import RunResult
    from pipelines.running.runner import Runner

DEFAULT_ROOT = "artifacts"

StrPath = str | os.PathLike[str]


def run(
    config: StrPath | Experiment,
    *,
    root: StrPath | None = None,
    overrides: Sequence[str] = (),
    until: str | None = None,
    smoke: bool = False,
) -> RunResult:
    """Run an experiment: reuse cached steps, compute missing ones, write a report.

    ```python
    result = latentqa.run("experiments/quickstart.yaml", overrides=["train.lora.rank=8"])
    result.metrics["reading"]["test"]["control"]["grounded_gain"]
    ```

    >>> result = run(config, root=root)
    >>> [step.cached for step in result.steps]
    [True, True, True, True, True]
    >>> result.metrics["train"]["steps"]
    2

    Args:
        config: path of an experiment file, or an `Experiment` made in Python. With a Prefect API
            configured, the run of a file is a flow there; that of an `Experiment` never is.
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.
        overrides: `field.path=value`, each with its value in YAML; they win over the file.
        until: last step to run; None for all, and the report.
        smoke: run every step on about eight rows.

    Returns:
        The steps with their artifacts, the metrics of `run --json`, and where the report is.

    Raises:
        UserError: the experiment, a file, a model or an endpoint is not as it must be.
        LatentQAError: a step cannot be made; finished steps stay.
    """
    from pipelines.running.prefect_settings import configured_api_url
    from pipelines.running.request import RunRequest

    opened = _open(config, root, overrides, until, smoke=smoke)
    if isinstance(opened, RunRequest):
        if not configured_api_url():
            return opened.run()
        import flows

        return flows.run(opened)
    return opened.prepare_and_run()


def plan(
    config: StrPath | Experiment,
    *,
    root: StrPath | None = None,
    overrides: Sequence[str] = (),
    until: str | None = None,
    smoke: bool = False,
    sample: bool = False,
) -> list[StepPlan]:
    """Say for each step whether it is a hit or a miss and why, and what it would take.

    Nothing is made, and no weights are read unless `sample` is set.

    >>> [(step.step, step.status) for step in plan(config, root=root)][-2:]
    [('evaluate', 'hit'), ('report', 'hit')]
    >>> changed = plan(config, root=root, overrides=["train.lora.rank=3"])
    >>> [step.step for step in changed if step.status == "miss"]
    ['train', 'evaluate', 'report']

    Args:
        config: path of an experiment file, or an `Experiment` made in Python.
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.
        overrides: `field.path=value`, each with its value in YAML; they win over the file.
        until: last step to plan; None for all, and the report.
        smoke: plan a run on about eight rows.
        sample: run the target on 16 rows to estimate the size of a compressed store.

    Raises:
        UserError: the experiment, a file or a model is not as it must be.
    """
    from pipelines.running.plan import plan_run
    from pipelines.running.request import RunRequest

    opened = _open(config, root, overrides, until, smoke=smoke)
    runner = opened.open() if isinstance(opened, RunRequest) else opened
    return plan_run(runner, sampled=sample)


def results(ref: StrPath, *, root: StrPath | None = None) -> dict[str, Any]:
    """Read what a finished run measured: the document of `latentqa results --json`.

    ```python
    found = latentqa.results("reading")
    found["reading"]["test"]["system"]["hidden_gain"]
    found["groups"]["test"]["system"]["question=In which form does the assistant reply?"]
    ```

    >>> found = results("fake", root=root)
    >>> found["groups"]["test"]["control"]["kind=persona"]["grounded_gain"]["estimate"]
    0.5

    Args:
        ref: a REF of a run or of an evaluation.
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.

    Returns:
        `reading` by split and view; `groups` by split, view and group (`category=...`, `type=...`,
        `question=...`), measured from the evaluation's losses; `robustness`, `tasks` and `control`
        where they ran.

    Raises:
        RefError: `ref` names nothing, or nothing that was evaluated.
        DamagedError: a file of the evaluation cannot be read.
    """
    from pipelines.reports.run.results import read_results

    return read_results(open_refs(root), os.fspath(ref)).document


def sweep(
    config: StrPath,
    *,
    root: StrPath | None = None,
    overrides: Sequence[str] = (),
    vary: Sequence[str] = (),
    seeds: int | None = None,
    command: str = "",
) -> SweepFindings:
    """Run an experiment at several settings, and compute what it measures along each of them.

    >>> found = sweep(config, root=root, vary=["rank=2,4"])
    >>> [point.label for point in found.points]
    ['rank=2 seed=0', 'rank=4 seed=0']
    >>> [point.value for point in found.curves[0].points]
    [2, 4]

    Args:
        config: path of an experiment file.
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.
        overrides: `field.path=value` of every run.
        vary: axes as `field.path=a,b,c`; none takes the file's section `sweep`.
        seeds: trainings of each setting; None takes the file's.
        command: the command line that makes it again, for the page.

    Returns:
        Curves with their intervals and power laws, the finished points, and those that failed.

    Raises:
        UserError: the experiment, an axis, a file or a model is not as it must be.
        DataError: the runs have no question in common.
    """
    from pipelines.experiment.sweep_points import plan_sweep
    from pipelines.running.prefect_settings import configured_api_url
    from pipelines.sweeps.sweep import Sweep

    made = Sweep(
        plan=plan_sweep(Path(config), overrides, vary=vary, seeds=seeds),
        config=os.fspath(config),
        root=str(artifact_root(root)),
        command=command,
    )
    if not configured_api_url():
        return made.run()
    import flows

    return flows.run_sweep(made)


def load(
    decoder: StrPath,
    *,
    root: StrPath | None = None,
    model: StrPath | None = None,
    adapter: StrPath | None = None,
    device: str = "auto",
    foreign_target: StrPath | None = None,
    foreign_adapter: StrPath | None = None,
) -> Reader:
    """Load a trained decoder with its target, to ask questions.

    >>> reader = load("toy", root=root, device="cpu")
    >>> answer = reader.ask("You are a pirate.", "Who speaks here?", max_tokens=4)
    >>> isinstance(answer, str)
    True
    >>> asked = reader.ask_all("Hello!", ["Who?", "Why?"], system="Be a pirate.", max_tokens=4)
    >>> asked.view, len(asked.answers)
    ('system', 2)

    Args:
        decoder: a REF of a trained decoder (an experiment's name, `train/KEY`, a path), or a folder
            that one was published or copied to.
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.
        model: where the target is now; None takes what the decoder was trained with.
        adapter: where the target's own adapter is now, likewise.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `spread` puts some blocks on each GPU.
        foreign_target: a model of the same shape whose activations are read in place of the
            target's own, for shift experiments; every result says so.
        foreign_adapter: a PEFT adapter of it; alone, it is put on the decoder's own target.

    Raises:
        RefError: `decoder` names nothing, or no decoder.
        ModelError: the target is not where it was, or a foreign one has another shape.
        StoreError: `model` is not the decoder's target.
        DamagedError: the decoder's bytes are not those committed.
    """
    from pipelines.asking.load import load as load_reader

    return load_reader(
        os.fspath(decoder),
        root=artifact_root(root),
        model=None if model is None else os.fspath(model),
        adapter=None if adapter is None else os.fspath(adapter),
        device=device,
        foreign_target=None if foreign_target is None else os.fspath(foreign_target),
        foreign_adapter=None if foreign_adapter is None else os.fspath(foreign_adapter),
    )


def steer(
    decoder: StrPath | Reader,
    control: StrPath | SteeringControl | Sequence[StrPath | SteeringControl],
    *,
    weights: Sequence[float] = (),
    by: SteeringWay = "activations",
    strength: float = 1.0,
    overrides: Sequence[str] = (),
    root: StrPath | None = None,
    device: str = "auto",
) -> AbstractContextManager[SteeredTarget]:
    """Steer a decoder's target towards controls while the context is open.

    ```python
    with latentqa.steer("quickstart", "cheerful", strength=2) as target:
        print(target.reply("How do I peel garlic?").text)
    ```

    >>> from activation_store.target.generation import Sampling
    >>> with steer("toy", "cheerful", root=root, device="cpu") as target:
    ...     reply = target.reply("Hello!", sampling=Sampling(max_tokens=3))
    >>> len(reply.ids)
    3

    Args:
        decoder: a REF or folder of a trained decoder, or a `Reader` that is loaded already.
        control: a packaged control's name, a control's file, or a `SteeringControl`; several at
            once by `activations`.
        weights: of each control; below 0 the target is to become less of it.
        by: `activations` moves those of each prompt down the gradient of the decoder's loss;
            `vector` adds the mean of that over ordinary prompts; `weights` trains a LoRA adapter.
        strength: multiple of what the way makes of itself.
        overrides: `control.FIELD=value`, such as `control.activations.steps=8`.
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `spread` puts some blocks on each GPU.

    Returns:
        A context of the target; its method `reply` answers prompts steered, `unsteered` as it is.

    Raises:
        ConfigError: a control is neither packaged nor a file, or arguments do not go together.
        RefError: `decoder` names nothing, or no decoder.
    """
    from core.records.steering_control import SteeringControl, find_control
    from pipelines.asking import steering
    from pipelines.asking.reader import Reader

    given = [control] if isinstance(control, str | os.PathLike | SteeringControl) else control
    controls = [
        own if isinstance(own, SteeringControl) else find_control(os.fspath(own)) for own in given
    ]
    reader = decoder if isinstance(decoder, Reader) else load(decoder, root=root, device=device)
    settings = steering.steering_settings(overrides)
    return steering.steer(
        reader, controls, weights=weights, by=by, strength=strength, config=settings
    )


def open_store(ref: StrPath, *, root: StrPath | None = None) -> ActivationStore:
    """Open an activation store for reading.

    >>> store = open_store("toy", root=root)
    >>> store.layers, store.d_model
    ((2,), 32)

    Args:
        ref: the store's folder, or a REF of a dump (an experiment's name, `dump/KEY`, a path).
        root: folder of all artifacts; None takes `LATENTQA_ROOT`, else `artifacts`.

    Raises:
        RefError: `ref` names nothing, or no store.
        StoreError: nothing is committed there yet.
        DamagedError: its plan or a commit record is not as it was written.
    """
    from activation_store.read.reader import ActivationStore

    return ActivationStore(store_folder(ref, root=root))


def store_folder(ref: StrPath, *, root: StrPath | None = None) -> Path:
    """Find the folder of a store: `ref` itself, the data of an artifact there, or a name's dump.

    Raises:
        RefError: `ref` names nothing, or no store.
    """
    from activation_store.layout.arrays import COMMITS, PLAN_FILE
    from pipelines.artifacts.artifact import DATA

    path = Path(ref).expanduser()
    for folder in (path, path / DATA):
        if (folder / PLAN_FILE).is_file() or (folder / COMMITS).is_dir():
            return folder
    return open_refs(root).resolve(os.fspath(ref), kind="dump").data


def open_refs(root: StrPath | None = None) -> Refs:
    """Open the names of an artifact root.

    Raises:
        ConfigError: `root` is no folder and cannot be made one.
    """
    from pipelines.artifacts.refs import Refs
    from pipelines.artifacts.root import ArtifactRoot

    return Refs(ArtifactRoot(artifact_root(root)))


def artifact_root(root: StrPath | None = None) -> Path:
    """Give the artifact root: `root`, else `LATENTQA_ROOT`, else `artifacts`."""
    if root is None:
        root = os.environ.get("LATENTQA_ROOT", DEFAULT_ROOT)
    return Path(root).expanduser()


def _open(
    config: StrPath | Experiment,
    root: StrPath | None,
    overrides: Sequence[str],
    until: str | None,
    *,
    smoke: bool,
) -> RunRequest | Runner:
    """Make the request of a run of a file, or the runner of an `Experiment`."""
    from core.errors import ConfigError
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.experiment.config import Experiment
    from pipelines.experiment.smoke import smoke as make_small
    from pipelines.running.request import RunRequest
    from pipelines.running.runner import Runner

    where = artifact_root(root)
    if not isinstance(config, Experiment):
        return RunRequest(
            config=os.fspath(config),
            root=str(where),
            overrides=tuple(overrides),
            until=until,
            smoke=smoke,
        )
    if overrides:
        raise ConfigError(
            f"overrides: got {len(overrides)} together with an Experiment, expected none. "
            "Build the Experiment with those values, or pass its file."
        )
    experiment = make_small(config) if smoke else config
    name = experiment.experiment
    command = f"latentqa.run(Experiment(experiment={name!r}, ...))"
    return Runner(experiment, ArtifactRoot(where), until=until, command=command)
