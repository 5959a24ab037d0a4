"""The runner: reuse cached artifacts, compute missing ones, recompute damaged ones."""

from __future__ import annotations

import contextlib
import gc
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from core.errors import ConfigError, DamagedError, LatentQAError
from core.files import full_disk_errors
from core.processes.task_pool import TaskPool, local_pool
from core.progress import Progress, silent
from pipelines.artifacts.artifact import PROGRESS, Artifact
from pipelines.artifacts.cache_key import StepIdentity
from pipelines.artifacts.locks import Holder, exclusive, shared
from pipelines.artifacts.records import Spent, make_record
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot, kept_from_gc, roots_around
from pipelines.experiment.config import Experiment, resolve_number_formats
from pipelines.running.console import Console, ProgressFile, combine
from pipelines.running.coverage import check_plan, check_table
from pipelines.running.remarks import remarks
from pipelines.running.results import RunResult, StepRun
from pipelines.running.step_files import StepFiles
from pipelines.steps.dump import DUMP, compare_store
from pipelines.steps.order import steps_for
from pipelines.steps.shared.metrics import dropped_rows, metrics_of
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall
from pipelines.steps.source_digest import source_digest


class Runner:
    """One run of one experiment.

    Args:
        experiment: the experiment.
        root: where artifacts are.
        until: last step to run; None for all of them and the report.
        command: the command line that makes this run again, for the report.
        console: where lines and bars go.
        steps: the step table; None for the experiment's own.
        quiet_hits: leave cache hits unsaid.
        move_latest: whether `latest` of the experiment becomes this run; else the run has a number
            alone.

    Raises:
        ConfigError: there is no step `until`.
    """

    def __init__(
        self,
        experiment: Experiment,
        root: ArtifactRoot,
        *,
        until: str | None = None,
        command: str = "",
        console: Console | None = None,
        steps: Sequence[Step] | None = None,
        quiet_hits: bool = False,
        move_latest: bool = True,
    ) -> None:
        self.experiment = experiment = resolve_number_formats(experiment)
        self.root = root
        self.command = command
        self.console = console or Console()
        self.outside = ExternalInputs(experiment, root)
        self.runs: dict[str, StepRun] = {}
        self.pool: TaskPool = local_pool(experiment.runtime)
        """Runs pieces of steps side by side."""
        self._recomputed: set[tuple[str, str]] = set()
        self._quiet_hits = quiet_hits
        self._move_latest = move_latest
        table = steps_for(experiment) if steps is None else tuple(steps)
        self.steps = _steps_until(table, until)
        self.whole = len(self.steps) == len(table)
        self._by_name = {step.name: step for step in self.steps}

    def prepare(self) -> None:
        """Find everything from outside that any step needs, before any work is done.

        Raises:
            UserError: a folder, file or model is missing or malformed, the experiment's name is
                a tag of the user's, the planned rows leave none to train on or to judge, or a
                finished store is not as the experiment says.
        """
        Refs(self.root).check_free(self.experiment.experiment)
        remarks = [check_plan(self.experiment, self._by_name)]
        if DUMP in self._by_name:
            remarks.append(compare_store(self.experiment, self.outside))
        for remark in filter(None, remarks):
            self.console.say(remark)
        for step in self.steps:
            step.config(self.experiment)
            step.external(self.outside)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Mark the root as one, and keep garbage collection away from it while the body runs.

        So it is kept away from other roots in which the experiment names files.

        Raises:
            StorageError: the root cannot be made or written to.
        """
        with shared(self.root.in_use), contextlib.ExitStack() as held:
            self.root.mark()
            for root in roots_around(self.experiment.each_text()) - {self.root.path}:
                held.enter_context(kept_from_gc(root))
            yield

    def identity(self, step: Step) -> StepIdentity:
        """Return the identity of `step`, whose inputs are finished in this run.

        Raises:
            KeyError: an input is not.
        """
        return StepIdentity(
            kind=step.name,
            version=step.version,
            config=step.config(self.experiment),
            inputs={
                role: {"key": made.artifact.key, "digest": made.artifact.output}
                for role, made in ((r, self.runs[name]) for r, name in step.inputs.items())
            },
            external=step.external(self.outside),
        )

    def adopt(self, step: str, key: str, *, cached: bool = True, seconds: float = 0.0) -> None:
        """Take an artifact of the root as the output of the step `step` in this run.

        Args:
            step: name of a step of this run.
            key: whole key of the artifact.
            cached: whether the run found it finished.
            seconds: wall time that the run spent on it.
        """
        artifact = Artifact(self.root.folder(step, key))
        self.runs[step] = StepRun(
            step=self._by_name[step], artifact=artifact, cached=cached, seconds=seconds
        )

    def prepare_and_run(self) -> RunResult:
        """Run every step after all checks, while garbage collection is kept away.

        Raises: as `prepare`, `open` and `run`.
        """
        self.prepare()
        with self.open():
            return self.run()

    def run(self) -> RunResult:
        """Run every step, one after the other.

        Raises:
            LatentQAError: a step cannot be computed; finished steps stay.
        """
        for step in self.steps:
            self.step(step.name)
        return self.finish()

    def step(self, name: str, listener: Progress = silent) -> StepRun:
        """Find or compute the output of the step `name`, whose inputs are finished in this run.

        Args:
            name: name of a step of this run.
            listener: told how far the step is.

        Raises:
            LatentQAError: the step cannot be computed.
        """
        step = self._by_name[name]
        start = time.monotonic()
        while True:
            try:
                artifact, cached = self._find_or_make(step, listener)
                break
            except DamagedError as error:
                self._recompute(step, error)
        known = self.runs.get(name)
        if known is not None and cached and known.artifact.path == artifact.path:
            return known  # looked at again after an input was recomputed
        seconds = time.monotonic() - start
        run = StepRun(step=step, artifact=artifact, cached=cached, seconds=seconds)
        self.runs[name] = run
        self._tell(run)
        return run

    def finish(self) -> RunResult:
        """Name the run, and return the result of the steps that are finished."""
        artifacts = {name: run.artifact for name, run in self.runs.items()}
        report = artifacts.get("report")
        for line in remarks(self.experiment, self.runs):
            self.console.say(line)
        return RunResult(
            experiment=self.experiment.experiment,
            root=self.root.path,
            steps=tuple(run for run in self.runs.values() if run.step.listed),
            metrics=metrics_of({step: a.record for step, a in artifacts.items()}),
            report=None if report is None else report.data / report.record["counts"]["page"],
            name=Refs(self.root).publish(
                self.experiment.experiment,
                list(artifacts.values()),
                whole=self.whole,
                latest=self._move_latest,
            ),
        )

    def _find_or_make(self, step: Step, listener: Progress) -> tuple[Artifact, bool]:
        identity = self.identity(step)
        artifact = self.root.lookup(identity)
        if artifact is not None:
            return artifact, True
        with exclusive(self.root.lock(identity.kind, identity.key), self._waiting(identity.short)):
            # another run may have finished it while this one waited
            artifact = self.root.lookup(identity) or self.root.recover(identity)
            if artifact is not None:
                return artifact, True
            return self._make(step, identity, listener), False

    def _make(self, step: Step, identity: StepIdentity, listener: Progress) -> Artifact:
        inputs = {role: self.runs[name].artifact for role, name in step.inputs.items()}
        known = [run.artifact for run in self.runs.values()]
        opened = known if step.reads_all else list(inputs.values())
        read = StepFiles(step, self.experiment, self.outside, identity, opened)
        read.check_artifacts()
        self.check_models(step, here=True)
        if (rows := inputs.get("conversations")) is not None:
            replied = rows.kind != "conversations"
            check_table(rows.data, self.experiment, self._by_name, replied=replied)
        read.check_outside()
        resumed = self.root.partial(identity).path.exists()
        partial = self.root.begin(identity, keep_output=step.resumes_output)
        self.console.step(step.name, identity.key, "resumes" if resumed else "runs")
        start = time.monotonic()
        with full_disk_errors(partial.path), self.console.bar(step.name) as bar:
            call = StepCall(
                experiment=self.experiment,
                outside=self.outside,
                root=self.root.path,
                inputs=inputs,
                out=partial.data,
                work=partial.work,
                progress=combine(bar, listener, ProgressFile(partial.path / PROGRESS)),
                say=self.console.say,
                finished=tuple(known),
                command=self.command,
                pool=self.pool,
            )
            try:
                result = step.run(call)
            finally:
                _release_models()
        try:
            read.check_after()
        except LatentQAError:
            shutil.rmtree(partial.path)  # what was made of other files is nothing to go on from
            raise
        record = make_record(
            result=result,
            earlier=Spent.of(a.record for a in self._closure(step).values()),
            runtime=self.experiment.runtime.model_dump(mode="json"),
            locations=step.locations(self.experiment),
            seconds=time.monotonic() - start,
            resumed=resumed,
            source=source_digest(step.entry),
        )
        return self.root.commit(identity, record, result.store)

    def check_models(self, step: Step, *, here: bool) -> None:
        """Check the models of `step` and of what follows, before work is done that they would undo.

        Args:
            step: the first step that is to be computed.
            here: whether it is this machine that is to compute it.

        Raises:
            ModelError: one cannot be loaded.
            ConfigError: `runtime.device` is not here.
        """
        later = self.steps[self.steps.index(step) :]
        if any("weights" in one.external(self.outside) for one in later):
            from pipelines.running.preflight import check_models

            check_models(self.experiment, self.outside, self._by_name, here=here)

    def _closure(self, step: Step) -> Mapping[str, Artifact]:
        """Return all artifacts that `step` is made from, directly or not, by step."""
        found: dict[str, Artifact] = {}
        pending = list(step.inputs.values())
        while pending:
            name = pending.pop()
            if name not in found:
                found[name] = self.runs[name].artifact
                pending.extend(self._by_name[name].inputs.values() if name in self._by_name else ())
        return found

    def _recompute(self, step: Step, error: DamagedError) -> None:
        """Demote the damaged artifact that `error` names, and finish the steps up to `step` again.

        Raises:
            DamagedError: it is not one of this run, or was recomputed once already.
        """
        owner = self.root.owner(error.path)
        if owner is None:
            raise error
        kind, name = owner.path.parent.name, owner.path.name
        if kind not in self._by_name or (kind, name) in self._recomputed:
            raise error
        self._recomputed.add((kind, name))
        self.console.say(f"{kind}/{name} is damaged and is recomputed: {error}")
        with exclusive(self.root.lock(kind, name), self._waiting(f"{kind}/{name}")):
            if owner.path.exists():
                self.root.demote(owner)
        for earlier in self.steps:
            if earlier.name == step.name:
                return
            self.step(earlier.name)

    def _tell(self, run: StepRun) -> None:
        if run.cached and self._quiet_hits:
            return
        state = "hit" if run.cached else "done"
        self.console.step(run.step.name, run.artifact.key, state, run.seconds)
        if dropped := dropped_rows(run.step.name, run.artifact.record["counts"]):
            self.console.say(f"{run.step.name:<14} {dropped}")

    def _waiting(self, short: str) -> Callable[[Holder | None], None]:
        def tell(holder: Holder | None) -> None:
            who = holder or "another process"
            self.console.say(f"{short}: {who} is computing it; waiting.")

        return tell


def _release_models() -> None:
    """Free the memory of the models that a step has loaded, a device's too.

    Parts of a model refer to each other, so it takes a collection, and the next step is to find the
    room.
    """
    load: Any = sys.modules.get("activation_store.target.load")
    if load is not None and load.any_loaded():
        gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _steps_until(steps: tuple[Step, ...], until: str | None) -> tuple[Step, ...]:
    listed = [step.name for step in steps if step.listed]
    if until is None or until == listed[-1]:
        return steps
    if until not in listed:
        raise ConfigError(f"--until {until}: no such step; expected one of {', '.join(listed)}.")
    return steps[: [step.name for step in steps].index(until) + 1]
