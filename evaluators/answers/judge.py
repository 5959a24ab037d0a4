"""Judgement of written answers by an LLM: right, vague or wrong beside gold, asked twice.

The judge sees question, gold and answer: neither the control nor which activations the decoder was
given. Answers from the row's own activations and from another control's are judged alike, so that
what a guessing decoder gets right by chance can be compared with what a reading one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from core.documents.canonical import digest
from core.files import write_json
from core.progress import Progress, silent
from evaluators.answers.answer_quality import SIDES, estimate_pair
from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from evaluators.measure.metrics import (
    EvaluationMetrics,
    JudgedMetrics,
    JudgedSlice,
)
from evaluators.measure.result_files import (
    ANSWERS_FILE,
    JUDGED_FILE,
    METRICS_FILE,
    RESULTS,
    RESULTS_FILE,
    VERDICTS,
    VERDICTS_FILE,
    write_table,
)
from evaluators.measure.result_rows import judged_rows
from generators.llm.cached_client import LLMClient
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.quality.agreement import agreement
from generators.quality.judge import ItemVerdicts, Judgement, Rubric, judge, rubric_named

AnswerRow = Mapping[str, Any]
"""A row of answers.parquet."""


def ask_judge(
    session: LLMSession,
    asked: Sequence[tuple[Rubric, Sequence[Mapping[str, str]]]],
    progress: Progress,
) -> tuple[list[Judgement], Usage]:
    """Have the judge read items by each rubric, whose template their values fill.

    Returns:
        The judgement by each rubric, and what all of them took.

    Raises: as `judge_answers`.
    """
    endpoint = session.require_endpoint("judge.endpoint", [rubric.name for rubric, _ in asked])

    async def judge_all(client: LLMClient) -> list[Judgement]:
        return [await judge(client, rubric, items, progress=progress) for rubric, items in asked]

    found, client = session.run(endpoint, judge_all)
    return found, client.usage


def judge_answers(
    evaluation: Path,
    out: Path,
    session: LLMSession,
    *,
    config: EvaluateConfig,
    progress: Progress = silent,
) -> tuple[JudgedMetrics, Usage]:
    """Have an LLM judge a sample of an evaluation's answers by the rubric `judge_reading`.

    A verdict's share is a mean over questions, then over controls. A question of which a side has
    no readable verdict is left out, and counted.

    Args:
        evaluation: folder that the step `evaluate` wrote.
        out: receives every verdict as Parquet, and the numbers as JSON and as Parquet rows.
        session: how the judge is reached.
        config: settings of the evaluation, its judge among them.
        progress: receives finished verdicts.

    Raises:
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        ConfigError: the rubric's file is wrong.
    """
    rubric = rubric_named(session.texts, RUBRIC)
    rows = _draw_answers(pq.read_table(evaluation / ANSWERS_FILE).to_pylist(), config)
    items = [
        {"question": row["question"], "gold": row["gold"], "answer": row[side] or "(nothing)"}
        for row in rows
        for side in SIDES
    ]
    (found,), usage = ask_judge(session, [(rubric, items)], progress)
    pairs = list(zip(found.items[::2], found.items[1::2], strict=True))
    write_table(out / VERDICTS_FILE, _verdict_rows(rows, pairs), VERDICTS)
    slices: dict[str, dict[str, JudgedSlice]] = {}
    for split, view in dict.fromkeys((row["split"], row["view"]) for row in rows):
        chosen = [
            (row, pair)
            for row, pair in zip(rows, pairs, strict=True)
            if (row["split"], row["view"]) == (split, view)
        ]
        slices.setdefault(split, {})[view] = _measure_verdicts(chosen, rubric.verdicts, config)
    metrics = JudgedMetrics(judged=slices)
    write_json(out / JUDGED_FILE, metrics.to_json())
    foreign = EvaluationMetrics.read(evaluation / METRICS_FILE).foreign_target is not None
    numbers = [
        {"foreign_target": foreign, **row}
        for row in judged_rows(metrics, min_controls=config.min_controls)
    ]
    write_table(out / RESULTS_FILE, numbers, RESULTS)
    return metrics, usage


def _draw_answers(answers: Sequence[AnswerRow], config: EvaluateConfig) -> list[AnswerRow]:
    """Draw the answers of each split and view that are judged, by seed."""
    settings = config.judge or JudgeConfig()
    ordered = sorted(
        answers, key=lambda row: digest([config.seed, row["example_id"], row["question"]])
    )
    taken: dict[tuple[str, str], list[AnswerRow]] = {}
    for row in ordered:
        group = taken.setdefault((row["split"], row["view"]), [])
        if len(group) < settings.answers:
            group.append(row)
    return [row for key in sorted(taken) for row in taken[key]]


def _measure_verdicts(
    judged: Sequence[tuple[AnswerRow, tuple[ItemVerdicts, ItemVerdicts]]],
    verdicts: Sequence[str],
    config: EvaluateConfig,
) -> JudgedSlice:
    """Estimate the share of each verdict, and the agreement, of one split and view."""
    readable = [(row, pair) for row, pair in judged if None not in (each.verdict for each in pair)]
    controls = np.array([row["control_id"] for row, _ in readable])
    shares = {
        verdict: estimate_pair(
            {
                side: np.array([float(pair[i].verdict == verdict) for _, pair in readable])
                for i, side in enumerate(SIDES)
            },
            controls,
            config,
        )
        for verdict in verdicts
    }
    first, second = zip(*(each.verdicts for _, pair in judged for each in pair), strict=True)
    return JudgedSlice(
        shares=shares,
        agreement=agreement(first, second),
        unread=len(judged) - len(readable),
    )


def _verdict_rows(
    rows: Sequence[AnswerRow], pairs: Sequence[tuple[ItemVerdicts, ItemVerdicts]]
) -> list[dict[str, Any]]:
    names = ("split", "view", "control_id", "example_id", "question", "gold")
    return [
        {
            **{name: row[name] for name in names},
            "side": side,
            "answer": row[side],
            "first": judged.verdicts[0],
            "second": judged.verdicts[1],
        }
        for row, pair in zip(rows, pairs, strict=True)
        for side, judged in zip(SIDES, pair, strict=True)
    ]
