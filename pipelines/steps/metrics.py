"""What `run --json` prints as `metrics`: assembled from records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

DATA_STEPS = ("conversations", "questions", "complete")
"""Steps whose counts make up `data`."""


def metrics_of(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of the steps whose records are given.

    Args:
        records: step to its record.

    Returns:
        `data` {controls, examples, questions, dropped: {reason: rows}, ...}, `quality`, `store`,
        `train`, `reading` (with `foreign_target` where the store is another target's) and `judged`,
        each where its step is there; times are in seconds, losses
        in nats per token.
    """
    counts = {step: record["counts"] for step, record in records.items()}
    metrics: dict[str, Any] = {}
    data: dict[str, Any] = {}
    dropped: Counter[str] = Counter()
    for step in DATA_STEPS:
        if step in counts:
            data.update({k: v for k, v in counts[step].items() if k != "dropped"})
            dropped.update(counts[step].get("dropped", {}))
    if "quality" in counts:
        data["questions"] = counts["quality"]["questions"]
        dropped.update(counts["quality"]["dropped"])
        metrics["quality"] = counts["quality"]["quality"]
    if data:
        metrics["data"] = {**data, "dropped": dict(sorted(dropped.items()))}
    if "dump" in counts:
        metrics["store"] = dict(counts["dump"])
    if "train" in counts:
        metrics["train"] = dict(counts["train"])
    if "evaluate" in counts:
        metrics["reading"] = counts["evaluate"]["reading"]
        if "foreign_target" in counts["evaluate"]:
            metrics["foreign_target"] = counts["evaluate"]["foreign_target"]
    if "judge" in counts:
        metrics["judged"] = counts["judge"]["judged"]
    if "robustness" in counts:
        metrics["robustness"] = dict(counts["robustness"])
    return metrics
