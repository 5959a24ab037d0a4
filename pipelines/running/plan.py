"""What a run would do, and why: nothing is made, no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import DamagedError
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.diff import nearest_payload
from pipelines.artifacts.identity import Difference, StepIdentity
from pipelines.running.results import StepRun
from pipelines.running.runner import Runner
from pipelines.steps.source_digest import source_digest
from pipelines.steps.step import Step

SHOWN = 6
"""Fields that a person is shown of a difference; `--json` has all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """What a run would do with one step."""

    step: str
    status: str
    """`hit`, `miss` or `damaged`."""
    key: str | None
    """Whole key; None where it depends on an input that is not made yet."""
    why: str
    """One sentence."""
    nearest: str | None = None
    """The artifact of this kind with the fewest other fields."""
    changes: tuple[Difference, ...] = ()
    """Those fields: there → here."""
    estimate: Mapping[str, Any] = field(default_factory=dict)
    """What the step would take: LLM `requests` and `tokens`, `money` (US dollars; null where the
    price is unknown), `seconds` and `bytes` (as of the nearest artifact; null where there is
    none); for a dump whose conversations are there, `raw_bytes` exactly, and `lossless_bytes` as
    told from a sample where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "step": self.step,
            "status": self.status,
            "key": self.key,
            "why": self.why,
            "nearest": self.nearest,
            "changes": [{"field": c.field, "there": c.left, "here": c.right} for c in self.changes],
            "estimate": dict(self.estimate),
        }


def make_plan(runner: Runner, *, sampled: bool = False) -> list[StepPlan]:
    """Plan of every step of `runner`, in order.

    Args:
        sampled: whether models may be run on a sample to tell sizes.

    Raises:
        UserError: something from outside is missing, or an artifact was changed by hand.
    """
    runner.prepare()
    return [_plan_step(runner, step, sampled) for step in runner.steps]


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
        return replace(missed, estimate={**missed.estimate, **_size(runner, step, sampled)})
    runner.runs[step.name] = StepRun(step=step, artifact=artifact, cached=True, seconds=0.0)
    why = "complete."
    if artifact.record.get("source") != source_digest(step.entry):
        why = "complete; made by other source files of the same version."
    return StepPlan(
        step=step.name, status="hit", key=identity.key, why=why, estimate=_estimate(None, hit=True)
    )


def _size(runner: Runner, step: Step, sampled: bool) -> dict[str, int]:
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
    status: str = "miss",
) -> StepPlan:
    near = nearest_payload(runner.root, step.name, payload)
    changes = tuple(near[1]) if near else ()
    if not why:
        why = "no such artifact yet." if near else f"no {step.name} artifact in this root yet."
        if identity is not None and runner.root.partial(identity).path.exists():
            why = "begun, not finished: goes on from where it stopped."
    return StepPlan(
        step=step.name,
        status=status,
        key=identity.key if identity else None,
        why=why,
        nearest=near[0].short if near else None,
        changes=changes,
        estimate=_estimate(near[0] if near else None),
    )


def _estimate(like: Artifact | None, *, hit: bool = False) -> dict[str, Any]:
    if hit:
        return {"requests": 0, "tokens": 0, "money": 0.0, "seconds": 0.0, "bytes": 0}
    if like is None:
        return {"requests": 0, "tokens": 0, "money": 0.0, "seconds": None, "bytes": None}
    return {
        "requests": int(like.record["counts"].get("requests", 0)),
        "tokens": int(like.record.get("tokens", 0)),
        "money": like.record.get("cost", 0.0),
        "seconds": float(like.record.get("seconds", 0.0)),
        "bytes": like.size,
    }
