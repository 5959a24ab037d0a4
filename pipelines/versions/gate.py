"""The quality gate: whether a new version of a data set may become `latest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.text.wording import interval, number, share
from generators.quality.config import RulesConfig
from generators.quality.flags import flag_rows, is_drawn
from generators.rules.duplicates import Duplicates
from pipelines.artifacts.artifact import Artifact
from pipelines.experiment.schedule_config import GateConfig
from pipelines.steps.shared.metrics import KEPT_ROWS
from pipelines.versions.drift import Drift, Rows, measure_drift
from pipelines.versions.tables import (
    control_ids,
    read_version,
    recorded_flags,
    rows_of_controls,
)

GAINS = ("hidden_gain", "grounded_gain")
"""What a canary is judged by: the second where no view is masked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateCheck:
    """One threshold, and what the new version has."""

    name: str
    value: float | None
    """None where it could not be measured."""
    limit: float
    passed: bool
    detail: str
    """One sentence."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class GateInputs:
    """The artifacts of two versions, which a gate compares."""

    now: Mapping[str, Artifact]
    """Artifacts of the new version, by step."""
    before: Mapping[str, Artifact] | None
    """Those of the last good version; None for the first."""
    grown: bool
    """Whether the new version holds the rows of the one before, so that only what was added is
    compared with it."""
    canary: Mapping[str, Any] | None
    """`reading` of the canary's evaluation; None without one."""


def judge_version(gate: GateConfig, inputs: GateInputs) -> list[GateCheck]:
    """Judge a new version; it is good where every check has passed.

    Raises:
        DataError: a table cannot be read.
    """
    rows = read_version(inputs.now)
    before = None if inputs.before is None else read_version(inputs.before)
    checks = [_dropped(gate, inputs.now), *_canary(gate, inputs.canary)]
    if rows is not None:
        checks += [_controls(gate, rows), *_flagged(gate, inputs.now, rows)]
        if before is not None:
            new = rows
            if inputs.grown:
                new = rows_of_controls(rows, control_ids(rows).keys() - control_ids(before).keys())
            checks += [_duplicates(gate, before, new), _drift(gate, before, new)]
    return [check for check in checks if check is not None]


def _controls(gate: GateConfig, rows: Rows) -> GateCheck | None:
    if gate.min_controls is None:
        return None
    found = len(control_ids(rows))
    return GateCheck(
        name="controls",
        value=found,
        limit=gate.min_controls,
        passed=found >= gate.min_controls,
        detail=f"{found} controls, expected at least {gate.min_controls}.",
    )


def _dropped(gate: GateConfig, artifacts: Mapping[str, Artifact]) -> GateCheck | None:
    """Check the step of generation that dropped the largest share of its rows."""
    if gate.max_dropped is None:
        return None
    shares = {}
    for step in ("conversations", "questions", "complete"):
        if step in artifacts:
            counts = artifacts[step].record["counts"]
            dropped = sum((counts.get("dropped") or {}).values())
            kept = int(counts.get(KEPT_ROWS[step], 0))
            shares[step] = dropped / (dropped + kept) if dropped else 0.0
    if not shares:
        return None
    worst = max(shares, key=lambda step: shares[step])
    detail = f"{worst} dropped {share(shares[worst])} of its rows"
    return _at_most("dropped", shares[worst], gate.max_dropped, detail)


def _flagged(
    gate: GateConfig, artifacts: Mapping[str, Artifact], rows: Rows
) -> list[GateCheck | None]:
    if not gate.max_flagged:
        return []
    if "quality" in artifacts:
        flags = recorded_flags(artifacts["quality"])
    else:
        checked = flag_rows(rows.conversations, rows.questions, RulesConfig())
        flags = checked.count(len(rows.conversations) + len(rows.questions))
    checks: list[GateCheck | None] = []
    for flag, limit in gate.max_flagged.items():
        found = flags.share(flag)
        detail = f"{share(found)} of the rows have the flag {flag}"
        checks.append(_at_most(f"flag {flag}", found, limit, detail))
    return checks


def _at_most(name: str, found: float, limit: float, detail: str) -> GateCheck:
    """Check a share against its upper limit; `detail` says what was found."""
    return GateCheck(
        name=name,
        value=found,
        limit=limit,
        passed=found <= limit,
        detail=f"{detail}, expected at most {share(limit)}.",
    )


def _duplicates(gate: GateConfig, before: Rows, new: Rows) -> GateCheck | None:
    """Check the share of new controls that are nearly one of the last good version."""
    if gate.max_duplicates is None:
        return None
    known = control_ids(before)
    index = Duplicates(RulesConfig().near_duplicate)
    kinds = {row.control_id: row.kind for row in (*before.conversations, *new.conversations)}
    for control, text in known.items():
        if not is_drawn(kinds[control]):
            index.add(text)
    controls = control_ids(new)
    repeated = sum(
        control in known or (not is_drawn(kinds[control]) and index.find(text) is not None)
        for control, text in controls.items()
    )
    found = repeated / len(controls) if controls else 0.0
    detail = (
        f"{repeated} of {len(controls)} new controls are near-duplicates of the last good version"
    )
    return _at_most("duplicates", found, gate.max_duplicates, detail)


def _drift(gate: GateConfig, before: Rows, new: Rows) -> GateCheck | None:
    if gate.max_drift is None:
        return None
    found = measure_drift(before, new)
    far: Drift | None = next((one for one in found if one.stands_out), None)
    if far is None:
        return GateCheck(
            name="drift",
            value=found[0].distance if found else None,
            limit=gate.max_drift,
            passed=True,
            detail="No distribution differs significantly from the last good version's.",
        )
    return GateCheck(
        name="drift",
        value=far.distance,
        limit=gate.max_drift,
        passed=far.distance <= gate.max_drift,
        detail=f"{far.name} is {number(far.distance)} from the last good version's "
        f"({far.most}; p = {far.p:.2g}), expected at most {number(gate.max_drift)}.",
    )


def _canary(gate: GateConfig, reading: Mapping[str, Any] | None) -> list[GateCheck | None]:
    if gate.canary is None or reading is None:
        return []
    least = gate.canary.least_gain
    for gain in GAINS:
        found = [
            (view, leaf)
            for views in reading.values()
            for view, metrics in views.items()
            if (leaf := metrics.get(gain)) is not None and leaf["estimate"] is not None
        ]
        if found:
            break
    else:
        return [
            GateCheck(
                name="canary",
                value=None,
                limit=least,
                passed=False,
                detail="The canary training measured nothing: no control was evaluated.",
            )
        ]
    view, leaf = max(found, key=lambda pair: _lower_end(pair[1]))
    value = _lower_end(leaf)
    words = interval(leaf["estimate"], leaf["low"], leaf["high"])
    return [
        GateCheck(
            name="canary",
            value=value,
            limit=least,
            passed=value >= least,
            detail=f"{gain.replace('_', ' ').capitalize()} of the canary training in view {view}: "
            f"{words} nats per token, expected at least {number(least)}.",
        )
    ]


def _lower_end(leaf: Mapping[str, Any]) -> float:
    """Return the lower end of an interval, or the estimate where there is none."""
    return float(leaf["estimate"] if leaf["low"] is None else leaf["low"])
