"""The metrics of a run, assembled from the records of its steps alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypedDict, cast

from evaluators.tasks.metrics import with_verdicts
from pipelines.artifacts.records import Spent

DATA_STEPS = ("conversations", "questions", "complete")
"""Steps whose counts make up `data`."""
KEPT_ROWS: Mapping[str, str] = {
    "conversations": "examples",
    "questions": "questions",
    "complete": "completions",
    "quality": "questions",
    "dump": "sequences",
}
"""Step that drops rows to the count of those that it kept."""


class CostMetrics(TypedDict):
    """What the LLM endpoints took for all steps of a run, whenever they were made."""

    tokens: int
    usd: float | None
    """Null where one of the prices is unknown."""


class RunMetrics(TypedDict, total=False):
    """Metrics of a run, each where its step is there; losses in nats a token, times in seconds."""

    data: dict[str, Any]
    """{"controls", "examples", "questions", "dropped": {reason: rows}, ...}."""
    quality: dict[str, Any]
    store: dict[str, Any]
    """{"sequences", "tokens", "bytes", "tokens_per_second", "dropped": {reason: rows}, ...}."""
    train: dict[str, Any]
    """{"steps", "questions", "questions_per_second", "loss", ...}."""
    reading: dict[str, Any]
    """{split: {view: {"answer_loss", "untrained", "grounded_gain", ...}}}."""
    foreign_target: dict[str, Any]
    """What differs, where the store is another target's."""
    judged: dict[str, Any]
    robustness: dict[str, Any]
    tasks: dict[str, Any]
    """{task: {"counts", "choices", "predictors": {name: {"contained", "exact", ...}}}}."""
    control: dict[str, Any]
    """{"prompts", "controls": {name: {"readability", "unsteered", "methods": {name: ...}}}}."""
    control_judged: dict[str, Any]
    """{control: {"measures": {name: {"unsteered", "gains": {method: ...}, "agreement"}}}}."""
    cost: CostMetrics


_TAKEN_OVER: Mapping[str, tuple[str, str | None]] = {
    "quality": ("quality", "quality"),
    "store": ("dump", None),
    "train": ("train", None),
    "reading": ("evaluate", "reading"),
    "foreign_target": ("evaluate", "foreign_target"),
    "judged": ("judge", "judged"),
    "robustness": ("robustness", None),
    "tasks": ("tasks", "tasks"),
    "control": ("control", None),
    "control_judged": ("judge_control", "controls"),
}
"""Metrics that are counts of a step: one field of them, or all (None)."""


def metrics_of(records: Mapping[str, Mapping[str, Any]]) -> RunMetrics:
    """Return the metrics of the steps whose records are given, by step."""
    counts: dict[str, Any] = {step: record["counts"] for step, record in records.items()}
    found: dict[str, Any] = {}
    if data := _data_metrics(counts):
        found["data"] = data
    for name, (step, field) in _TAKEN_OVER.items():
        own = counts.get(step, {})
        if step in counts and field is None:
            found[name] = dict(own)
        elif field in own:
            found[name] = own[field]
    if "tasks" in found:
        judged = counts.get("judge_tasks", {}).get("judged_tasks", {})
        found["tasks"] = with_verdicts(found["tasks"], judged)
    metrics = cast(RunMetrics, found)
    if records:
        spent = Spent.of(records.values())
        metrics["cost"] = {"tokens": spent.tokens, "usd": spent.cost}
    return metrics


def _data_metrics(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the counts of the steps that make the rows; what each dropped is added up by reason."""
    data: dict[str, Any] = {}
    dropped: Counter[str] = Counter()
    for step in DATA_STEPS:
        if step in counts:
            data.update({k: v for k, v in counts[step].items() if k != "dropped"})
            dropped.update(counts[step].get("dropped", {}))
    if "quality" in counts:
        data["questions"] = counts["quality"]["questions"]
        dropped.update(counts["quality"]["dropped"])
    return {**data, "dropped": dict(sorted(dropped.items()))} if data else {}


def dropped_rows(step: str, counts: Mapping[str, Any]) -> str | None:
    """Word how many rows a step dropped and why; None where it dropped none.

    Args:
        step: name of the step.
        counts: of its record.
    """
    dropped = {reason: n for reason, n in (counts.get("dropped") or {}).items() if n}
    if not dropped:
        return None
    lost = sum(dropped.values())
    kept = counts.get(KEPT_ROWS.get(step, ""))
    total = "" if kept is None else f" of {lost + int(kept)}"
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(dropped.items()))
    return f"{lost}{total} rows dropped: {reasons}"
