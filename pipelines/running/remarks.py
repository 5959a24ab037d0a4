"""Warnings about a finished run: nothing judged, another server's replies, changed code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.text.redact import redact_value
from pipelines.artifacts.artifact import Artifact
from pipelines.experiment.config import Experiment
from pipelines.running.results import StepRun
from pipelines.steps.source_digest import source_digest


def remarks(experiment: Experiment, runs: Mapping[str, StepRun]) -> Iterator[str]:
    """Yield a line for each remark on a finished run.

    Args:
        experiment: what was run.
        runs: its finished steps, by name.
    """
    if said := nothing_judged(runs["evaluate"].artifact if "evaluate" in runs else None):
        yield said
    hits = [run for run in runs.values() if run.cached]
    yield from dict.fromkeys(
        line
        for run in hits
        if (
            line := other_server(
                run.artifact.identity["external"],
                run.artifact.record["locations"],
                redact_value(run.step.locations(experiment)),
            )
        )
    )
    changed = [
        run.artifact.short
        for run in hits
        if run.artifact.record.get("source") != source_digest(run.step.entry)
    ]
    if changed:
        yield (
            f"The code of {len(changed)} steps has changed since their artifacts were made, "
            "but not their step versions, so the artifacts are reused: "
            f"{', '.join(changed)}."
        )


def nothing_judged(evaluate: Artifact | None) -> str | None:
    """Say why an evaluation measured nothing; None where it measured something.

    Args:
        evaluate: its artifact; None for none.
    """
    reading = {} if evaluate is None else evaluate.record["counts"].get("reading")
    if evaluate is None or reading is None:
        return None
    cases = [case for views in reading.values() for case in views.values()]
    if any((case["answer_loss"].get("right") or {}).get("estimate") is not None for case in cases):
        return None
    config = evaluate.identity["config"]
    controls = max(
        ((case["answer_loss"].get("right") or {}).get("n", 0) for case in cases), default=0
    )
    return (
        f"Nothing could be judged: {controls} controls in the split "
        f"{' or '.join(config.get('splits') or reading)}, expected at least "
        f"{config.get('min_controls', 1)} (evaluate.min_controls). Take more rows."
    )


def other_server(
    external: Mapping[str, Any], was: Mapping[str, Any], now: Mapping[str, Any]
) -> str | None:
    """Say that a hit's rows come from another server, whose model only has the same name.

    Args:
        external: what decides the step's output besides its config.
        was: where its inputs lay when it was computed.
        now: where this run has them.

    Returns:
        a line; None where the server is the same, or `revision` says what the model is.
    """
    model = external.get("generator") or external.get("judge")
    if not isinstance(model, str) or "@" in model or model.startswith("gguf:"):
        return None
    if was.get("base_url") == now.get("base_url"):
        return None
    return (
        f"Replies of {model!r} at {was.get('base_url') or 'api.openai.com'} are reused for "
        f"the model of that name at {now.get('base_url') or 'api.openai.com'}. If the "
        "models differ, set endpoint.revision."
    )
