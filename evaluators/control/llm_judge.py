"""An LLM's judgement of steered replies: whether they keep to the control, and their mood.

A third measure beside code and likelihood. The judge sees the control's description, what the user
said and the reply, but not which method wrote it; each reply is judged twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.files import write_json
from core.progress import Progress, silent
from core.records.steering_control import load_control
from evaluators.answers.judge import ask_judge
from evaluators.control.config import ControlSection, JudgedMeasure
from evaluators.control.metrics import JudgedControl, JudgedControls, JudgedReplies
from evaluators.control.result_files import JUDGED_CONTROL_FILE, REPLIES_FILE, REPLY_VERDICTS
from evaluators.control.result_rows import VIEW
from evaluators.measure.result_files import (
    RESULTS,
    RESULTS_FILE,
    VERDICTS_FILE,
    read_rows,
    write_table,
)
from evaluators.measure.result_rows import WHOLE
from evaluators.stats.estimates import Resampling, mean_estimate
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.quality.agreement import agreement
from generators.quality.judge import ItemVerdicts, Rubric, rubric_named

RUBRICS: Mapping[JudgedMeasure, str] = {
    "adherence": "judge_completion",
    "sentiment": "judge_sentiment",
}
"""Measure to the prompt file of its rubric, whose verdicts go from the best to the worst of three,
which count 1, 0 and −1."""

Row = Mapping[str, Any]
"""A row of replies.parquet."""


def judge_replies(
    control: Path,
    out: Path,
    session: LLMSession,
    *,
    config: ControlSection,
    progress: Progress = silent,
) -> tuple[JudgedControls, Usage]:
    """Judge the replies of steered targets.

    Args:
        control: folder that the step `control` wrote.
        out: receives verdicts.parquet, control_judged.json and results.parquet.
        session: how the judge is reached.
        config: settings of the evaluation, its judge among them.
        progress: receives finished verdicts.

    Returns:
        What was found, and what it took.

    Raises:
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        ConfigError: a rubric's file is wrong.
    """
    assert config.judge is not None
    rows = _choose_rows(read_rows(control / REPLIES_FILE), config.judge.prompts)
    names = dict.fromkeys(row["control"] for row in rows)
    said = {name: load_control(control / name / "control.yaml").description for name in names}
    rubrics = {own: rubric_named(session.texts, RUBRICS[own]) for own in config.judge.measures}

    asked = [
        (rubric, [_item(row, said, measure) for row in rows]) for measure, rubric in rubrics.items()
    ]
    judgements, usage = ask_judge(session, asked, progress)
    verdicts = {
        measure: judgement.items for measure, judgement in zip(rubrics, judgements, strict=True)
    }
    judged_controls: dict[str, JudgedControl] = {}
    for name in names:
        own = [i for i, row in enumerate(rows) if row["control"] == name]
        judged_controls[name] = JudgedControl(
            measures={
                measure: _measure(
                    [(rows[i], verdicts[measure][i]) for i in own], rubrics[measure], config
                )
                for measure in rubrics
            }
        )
    metrics = JudgedControls(
        controls=judged_controls, rubrics={m: rubric.digest for m, rubric in rubrics.items()}
    )
    write_table(out / VERDICTS_FILE, _verdict_rows(rows, verdicts), REPLY_VERDICTS)
    write_json(out / JUDGED_CONTROL_FILE, metrics.model_dump(mode="json"))
    write_table(out / RESULTS_FILE, _result_rows(metrics), RESULTS)
    return metrics, usage


def _choose_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Take the same first prompts of every control and method."""
    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for row in rows:
        key = (row["control"], row["method"])
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= most:
            chosen.append(row)
    return chosen


def _item(row: Row, said: Mapping[str, str], measure: JudgedMeasure) -> dict[str, str]:
    item = {"stimulus": row["prompt"], "completion": row["reply"] or "(nothing)"}
    return item if measure == "sentiment" else {"control": said[row["control"]], **item}


def _measure(
    judged: Sequence[tuple[Row, ItemVerdicts]], rubric: Rubric, config: ControlSection
) -> JudgedReplies:
    """Score the methods of one control, each against the unsteered target's replies."""
    scores = dict(zip(rubric.verdicts, np.linspace(1, -1, len(rubric.verdicts)), strict=True))
    by_method: dict[str, dict[str, float]] = {}
    for row, own in judged:
        if own.verdict is not None:
            by_method.setdefault(row["method"], {})[row["prompt"]] = float(scores[own.verdict])
    plain = by_method.pop("none", {})
    first, second = zip(*(own.verdicts for _, own in judged), strict=True)

    draw = Resampling(samples=config.bootstrap, seed=config.seed)
    estimate = partial(mean_estimate, draw=draw)
    return JudgedReplies(
        unsteered=estimate(list(plain.values())),
        gains={
            method: estimate([own[p] - plain[p] for p in own if p in plain])
            for method, own in by_method.items()
        },
        agreement=agreement(first, second),
        unread=sum(own.verdict is None for _, own in judged),
    )


def _verdict_rows(
    rows: Sequence[Row], verdicts: Mapping[JudgedMeasure, Sequence[ItemVerdicts]]
) -> Iterator[dict[str, Any]]:
    for measure, found in verdicts.items():
        for row, own in zip(rows, found, strict=True):
            names = ("control", "method", "prompt", "reply")
            yield {
                **{name: row[name] for name in names},
                "measure": measure,
                "first": own.verdicts[0],
                "second": own.verdicts[1],
            }


def _result_rows(metrics: JudgedControls) -> Iterator[dict[str, Any]]:
    for name, control in metrics.controls.items():
        for measure, found in control.measures.items():
            for method, gain in {"none": found.unsteered, **found.gains}.items():
                yield {
                    "split": "test",
                    "view": VIEW,
                    "foreign_target": False,
                    "group": WHOLE,
                    "metric": f"{name}.{method}.judged_{measure}",
                    **gain.model_dump(),
                    "note": None if gain.low is not None else "too few prompts for an interval",
                }
