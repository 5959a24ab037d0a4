"""Judgement of written answers by an LLM: right, vague or wrong beside gold, asked twice.

The judge sees question, gold and answer: neither the control nor which activations the decoder was
given. Answers from the row's own activations and from another control's are judged alike, so that
what a guessing decoder gets right by chance can be compared with what a reading one does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from core.canonical import digest
from core.files import write_json
from core.progress import Progress, silent
from evaluators.answers.answer_quality import SIDES, estimate_pair
from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from evaluators.measure.metrics import (
    AgreementMetrics,
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
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.quality.judge import (
    ItemVerdicts,
    Judgement,
    Rubric,
    agreement,
    judge,
    rubric_named,
)

AnswerRow = Mapping[str, Any]
"""A row of answers.parquet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeCosts:
    """The rubric that a judge was asked by, and what its requests cost.

    Attributes:
        rubric: digest of the rubric.
        usage: requests, tokens and cost.
    """

    rubric: str
    usage: Usage

    def to_json(self) -> dict[str, Any]:
        """Return what the artifact's record keeps."""
        return {"rubric": self.rubric, **self.usage.to_json()}


def ask_judge(
    session: LLMSession, rubric: Rubric, items: Sequence[Mapping[str, str]], progress: Progress
) -> tuple[Judgement, JudgeCosts]:
    """Have the judge read `items`, whose values fill the rubric's template.

    Raises: as `judge_answers`.
    """
    endpoint = session.require_endpoint("judge.endpoint", [rubric.name])
    found, client = session.run(
        endpoint, lambda client: judge(client, rubric, items, progress=progress)
    )
    return found, JudgeCosts(rubric=rubric.digest, usage=client.usage)


def judge_answers(
    evaluation: Path,
    out: Path,
    session: LLMSession,
    *,
    config: EvaluateConfig,
    progress: Progress = silent,
) -> tuple[JudgedMetrics, JudgeCosts]:
    """Judge answers of an evaluation by the rubric `judge_reading`.

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
    found, costs = ask_judge(session, rubric, items, progress)
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
    return metrics, costs


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
        agreement=AgreementMetrics(**dataclasses.asdict(agreement(first, second))),
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
