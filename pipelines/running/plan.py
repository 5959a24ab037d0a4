"""The plan of a run: what it would do and why. Nothing is computed, no weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from core.errors import DamagedError
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import Difference, StepIdentity
from pipelines.artifacts.diff import nearest
from pipelines.artifacts.refs import Refs
from pipelines.running.results import StepRun
from pipelines.running.runner import Runner
from pipelines.steps.shared.step import Step
from pipelines.steps.source_digest import source_digest

SHOWN = 6
"""Most fields of a difference that are printed; `--json` has all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEstimate:
    """What a step would take, as it took this experiment before; None where nothing tells."""

    requests: int | None = None
    """LLM requests."""
    tokens: int | None = None
    """LLM tokens."""
    money: float | None = None
    """US dollars; None too where a price is unknown."""
    seconds: float | None = None
    bytes: int | None = None
    like: str | None = None
    """The artifact whose numbers these are: one that a version of this experiment holds."""
    raw_bytes: int | None = None
    """Exact size of a store's raw shards, where its conversations are there."""
    lossless_bytes: int | None = None
    """Size under the codec `lossless`, measured on a sample where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types; sizes of a store only where they are known."""
        sizes = ("raw_bytes", "lossless_bytes")
        return {k: v for k, v in asdict(self).items() if v is not None or k not in sizes}


NOTHING = StepEstimate(requests=0, tokens=0, money=0.0, seconds=0.0, bytes=0)
"""What a cache hit takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """What a run would do with one step."""

    step: str
    status: Literal["hit", "miss", "damaged"]
    key: str | None
    """Whole key; None where it depends on an input that is not there yet."""
    why: str
    """One sentence."""
    nearest: str | None = None
    """The artifact of this kind that differs in the fewest fields."""
    changes: tuple[Difference, ...] = ()
    """Those fields: there → here."""
    estimate: StepEstimate = NOTHING

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        changes = [{"field": c.field, "there": c.left, "here": c.right} for c in self.changes]
        return {**asdict(self), "changes": changes, "estimate": self.estimate.to_json()}


def plan_run(runner: Runner, *, sampled: bool = False) -> list[StepPlan]:
    """Return the plan of every step of `runner`, in order.

    Args:
        runner: a runner that has not run.
        sampled: run the target on a sample, to measure the size of a packed store.

    Raises:
        UserError: something from outside is missing or cannot be used, or an artifact was changed
            by hand.
    """
    runner.prepare()
    planned = [_plan_step(runner, step, sampled) for step in runner.steps]
    for step, one in zip(runner.steps, planned, strict=True):
        if one.status != "hit":
            runner.check_models(step, here=False)
            break
    return planned


def _plan_step(runner: Runner, step: Step, sampled: bool) -> StepPlan:
    waiting = [name for name in step.inputs.values() if name not in runner.runs]
    if waiting:
        known = {
            "version": step.version,
            "config": step.config(runner.experiment),
            "external": step.external(runner.outside),
        }
        return _miss(runner, step, None, known, f"waits for {waiting[0]}.")
    identity = runner.identity(step)
    try:
        artifact = runner.root.lookup(identity)
    except DamagedError as error:
        return _miss(runner, step, identity, identity.payload(), str(error), status="damaged")
    if artifact is None:
        missed = _miss(runner, step, identity, identity.payload(), "")
        estimate = replace(missed.estimate, **_size(runner, step, sampled))
        return replace(missed, estimate=estimate)
    runner.runs[step.name] = StepRun(step=step, artifact=artifact, cached=True, seconds=0.0)
    why = "complete."
    if artifact.record.get("source") != source_digest(step.entry):
        why = "complete; its code has changed since, but not its step version."
    return StepPlan(step=step.name, status="hit", key=identity.key, why=why)


def _size(runner: Runner, step: Step, sampled: bool) -> dict[str, Any]:
    if step.size is None:
        return {}
    inputs = {role: runner.runs[name].artifact.data for role, name in step.inputs.items()}
    return step.size(runner.experiment, runner.outside, inputs, sampled)


def _miss(
    runner: Runner,
    step: Step,
    identity: StepIdentity | None,
    payload: Mapping[str, Any],
    why: str,
    *,
    status: Literal["miss", "damaged"] = "miss",
) -> StepPlan:
    artifacts = runner.root.artifacts(step.name)
    near = nearest(artifacts, payload)
    own = nearest(_of_experiment(runner, artifacts), payload)
    changes = tuple(near[1]) if near else ()
    if not why:
        why = "no such artifact yet." if near else f"no {step.name} artifact in this root yet."
        if identity is not None and runner.root.partial(identity).path.exists():
            why = "unfinished: resumes where it stopped."
    return StepPlan(
        step=step.name,
        status=status,
        key=identity.key if identity else None,
        why=why,
        nearest=near[0].short if near else None,
        changes=changes,
        estimate=_estimate(own[0]) if own else StepEstimate(),
    )


def _of_experiment(runner: Runner, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Return the artifacts that versions of the runner's own experiment hold."""
    held = {
        target
        for name in Refs(runner.root).names()
        if name.name == runner.experiment.experiment
        for target in name.artifacts
    }
    return [a for a in artifacts if f"{a.kind}/{a.key}" in held]


def _estimate(like: Artifact) -> StepEstimate:
    cost = like.record.get("cost", 0.0)
    return StepEstimate(
        requests=int(like.record["counts"].get("requests", 0)),
        tokens=int(like.record.get("tokens", 0)),
        money=None if cost is None else float(cost),
        seconds=float(like.record.get("seconds", 0.0)),
        bytes=like.size,
        like=like.short,
    )
