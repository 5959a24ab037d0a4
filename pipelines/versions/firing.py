"""A firing of a schedule: make the next version, judge it, promote it or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import ConfigError, LatentQAError
from core.text.redact import redact
from generators.kinds.config import KindPlan
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.locks import Holder, exclusive, holder
from pipelines.artifacts.refs import LATEST, Refs
from pipelines.artifacts.retention import find_expired
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment
from pipelines.experiment.schedule_config import CanaryConfig, ScheduleSection
from pipelines.reports.versions.page import write_firing
from pipelines.running.console import Console
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner
from pipelines.versions.gate import GateInputs, judge_version
from pipelines.versions.journal import FINAL, Firing, Journal

RunExperiment = Callable[[Runner], RunResult]
"""Runs all steps of a runner, such as as tasks of an orchestrator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """The outcome of a firing: its record, or why it was skipped."""

    firing: Firing | None
    """Its record; None where it did not run."""
    skipped: str | None = None
    """Why it did not run."""
    page: str | None = None
    """Its page."""

    @property
    def refused_because(self) -> list[str]:
        """What the gate found against the version, a sentence each."""
        checks = self.firing.checks if self.firing is not None else ()
        return [str(check["detail"]) for check in checks if not check["passed"]]


def fire(
    experiment: Experiment,
    root: ArtifactRoot,
    *,
    due: datetime | None = None,
    command: str = "",
    run: RunExperiment = Runner.prepare_and_run,
    console: Console | None = None,
) -> Fired:
    """Make the next version of an experiment with a schedule.

    A firing that comes while another is under way waits for it. One that was due before another
    began does not run: a machine that was off for a week makes up for it once.

    Args:
        experiment: the experiment, with a section `schedule`.
        root: the artifact root.
        due: when the clock wanted it; None where a person started it.
        command: the command line, for reports.
        run: runs the steps.
        console: where lines go.

    Raises:
        ConfigError: the experiment has no schedule.
        LatentQAError: a step cannot be computed; the next firing goes on from there.
    """
    schedule = _schedule(experiment)
    journal = Journal(root, experiment.experiment)
    say = (console or Console()).say

    def waiting(holder: Holder | None) -> None:
        say(f"{experiment.experiment}: {holder or 'another process'} is making a version; waiting.")

    with exclusive(journal.lock, waiting):
        if (before := journal.caught_up_by(due)) is not None:
            return Fired(
                firing=None,
                skipped=f"run {before.number} started after this one was due and already covers it",
            )
        firing = journal.begin(due)
        try:
            done = _Version(experiment, schedule, root, firing, command, run, console).make(journal)
        except Exception as error:  # a device without memory too: the record says why it failed
            kind = "" if isinstance(error, LatentQAError) else f"{type(error).__name__}: "
            journal.end(firing, "failed", error=redact(kind + " ".join(str(error).split())))
            raise
        page = journal.page(done)
        write_firing(experiment.experiment, done.to_json(), page)
        _forget_old(Refs(root), experiment.experiment, schedule)
    return Fired(firing=done, page=str(page))


@dataclass(frozen=True)
class _Version:
    """The version that a firing makes."""

    experiment: Experiment
    schedule: ScheduleSection
    root: ArtifactRoot
    firing: Firing
    command: str
    run: RunExperiment
    console: Console | None

    def make(self, journal: Journal) -> Firing:
        """Run the experiment of this firing, judge its version, and write the record's end."""
        refs = Refs(self.root)
        good = refs.get(f"{self.experiment.experiment}:{LATEST}")
        before = None if good is None else refs.resolve_set(str(good))
        last_good = None if good is None else f"{good.name}:{good.number}"
        made = next_experiment(self.experiment, self.firing.number, before)
        result = self.run(self._runner(made, self.schedule.until))
        version = str(result.name)
        if good is not None and result.name.artifacts == good.artifacts:
            return journal.end(self.firing, "unchanged", version=version, last_good=last_good)
        canary = self.schedule.gate.canary
        checks = judge_version(
            self.schedule.gate,
            GateInputs(
                now=refs.resolve_set(version),
                before=before,
                grown=self.schedule.mode == "grow",
                canary=None if canary is None else self._train_canary(made, canary),
            ),
        )
        passed = all(check.passed for check in checks)
        if passed:
            refs.promote(result.name)
        return journal.end(
            self.firing,
            "promoted" if passed else "refused",
            version=version,
            last_good=last_good,
            checks=tuple(check.to_json() for check in checks),
        )

    def _train_canary(self, made: Experiment, canary: CanaryConfig) -> Mapping[str, Any]:
        result = self.run(self._runner(canary_experiment(made, canary), None))
        return result.metrics["reading"]

    def _runner(self, experiment: Experiment, until: str | None) -> Runner:
        return Runner(
            experiment,
            self.root,
            until=until,
            command=self.command,
            console=self.console,
            move_latest=False,
        )


def next_experiment(
    experiment: Experiment, number: int, before: Mapping[str, Artifact] | None
) -> Experiment:
    """Return the experiment of firing `number`; the first is the experiment as it stands.

    Args:
        experiment: the experiment, with a section `schedule`.
        number: of the firing, from 1.
        before: artifacts of the last good version, by step; None for none.

    Raises:
        ConfigError: the experiment has no schedule.
    """
    schedule = _schedule(experiment)
    section = experiment.generate
    if section is None:
        return experiment  # an import: what is new is in its files
    past = number - 1
    conversations, questions = section.conversations, section.questions
    earlier = section.earlier
    if schedule.mode == "fresh":
        conversations = conversations.with_changes(seed=conversations.seed + past)
        questions = questions.with_changes(seed=questions.seed + past)
        if past and schedule.distinct and before is not None and "conversations" in before:
            earlier = (*earlier, str(before["conversations"].data))
    else:
        more = schedule.by * past
        kinds = {name: _grown(plan, more) for name, plan in conversations.kinds.items()}
        conversations = conversations.with_changes(kinds=kinds)
    changed = section.with_changes(
        conversations=conversations, questions=questions, earlier=earlier
    )
    return experiment.with_changes(generate=changed)


def newest_firing(runner: Runner) -> tuple[Firing, Runner, Holder | None] | None:
    """Find the newest firing of an experiment's schedule.

    Args:
        runner: of the experiment as its file says it.

    Returns:
        Its record, a runner of the version that it makes, and the process that makes one now (None
        for none); None where it has not fired in this root.

    Raises:
        ConfigError: the experiment has no schedule.
    """
    experiment, refs = runner.experiment, Refs(runner.root)
    journal = Journal(runner.root, experiment.experiment)
    firings = journal.firings()
    if not firings:
        return None
    firing = firings[-1]
    named = firing.last_good if firing.state in FINAL else f"{experiment.experiment}:{LATEST}"
    good = None if named is None else refs.get(named)
    before = None if good is None else refs.resolve_set(str(good))
    made = next_experiment(experiment, firing.number, before)
    made_by = Runner(made, runner.root, until=_schedule(experiment).until)
    return firing, made_by, holder(journal.lock)


def check_schedule(experiment: Experiment) -> None:
    """Refuse a schedule whose every version the gate would refuse.

    Raises:
        ConfigError: the experiment has no schedule, or the gate wants more controls than a version
            has and versions do not grow.
    """
    schedule, section = _schedule(experiment), experiment.generate
    least = schedule.gate.min_controls
    if least is None or section is None or schedule.mode == "grow":
        return
    planned = sum(plan.controls for plan in section.conversations.kinds.values())
    if planned < least:
        raise ConfigError(
            f"{experiment.experiment}: schedule.gate.min_controls is {least}, but a version "
            f"is planned with only {planned} controls (generate.conversations.kinds), so "
            "the gate would refuse every version. Lower the first or raise the second."
        )


def canary_experiment(experiment: Experiment, canary: CanaryConfig) -> Experiment:
    """Return the small training on the same rows and the same store, as NAME_canary."""
    train = experiment.train
    small = train.with_changes(
        max_rows=min(canary.rows, train.max_rows or canary.rows),
        max_steps=min(canary.steps, train.max_steps or canary.steps),
        evaluations=1,
    )
    evaluate = experiment.evaluate.with_changes(
        max_controls=min(canary.controls, experiment.evaluate.max_controls or canary.controls),
        baselines=(),
        judge=None,
        answers=0,
        identification=0,
        control_effect=False,
    )
    return experiment.with_changes(
        experiment=f"{experiment.experiment}_canary",
        train=small,
        evaluate=evaluate,
        robustness=None,
        tasks=None,
        control=None,
    )


def _schedule(experiment: Experiment) -> ScheduleSection:
    if experiment.schedule is None:
        raise ConfigError(
            f"{experiment.experiment}: has no section `schedule`, expected `schedule: "
            f"{{mode: fresh}}` or `schedule: {{mode: grow, by: 8}}`."
        )
    return experiment.schedule


def _grown(plan: KindPlan, more: int) -> KindPlan:
    """Add controls to a plan, spread evenly over its categories where it names any."""
    if plan.categories is None:
        return plan.with_changes(controls=plan.controls + more)
    each, rest = divmod(more, len(plan.categories))
    categories = {
        name: count + each + (i < rest) for i, (name, count) in enumerate(plan.categories.items())
    }
    return plan.with_changes(categories=categories, controls=sum(categories.values()))


def _forget_old(refs: Refs, experiment: str, schedule: ScheduleSection) -> None:
    """Drop the names of versions that the rule does not keep, and of all canaries but the last."""
    if schedule.keep is None:
        return
    keep = schedule.keep
    expired = find_expired(refs, experiment, last=keep.last, weekly=keep.weekly)
    expired += find_expired(refs, f"{experiment}_canary", last=1, weekly=0)
    for name in expired:
        refs.untag(str(name))
