"""What an LLM says of written answers: right, vague or wrong beside gold, asked twice.

The judge sees question, gold and answer: neither the control nor which activations the decoder was
given. Answers from the row's own activations and from another control's are judged alike, so that
what a guessing decoder gets right by chance stands beside what a reading one does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from core.canonical import digest
from core.files import write_json
from core.progress import Progress, silent
from evaluators.answers.answer_quality import SIDES
from evaluators.config import RUBRIC, EvaluateConfig, JudgeConfig
from evaluators.measure.panel import columns, mean, sampler
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
from evaluators.measure.results import judged_rows
from generators.llm.client import LLMClient, run_async
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.log.request_log import RequestLog
from generators.llm.prompt_files import PromptFiles
from generators.quality.judge import ItemVerdicts, Judgement, agreement, judge, rubric_named

Answer = Mapping[str, Any]


def judge_answers(
    evaluation: Path,
    out: Path,
    log: Path,
    *,
    config: EvaluateConfig,
    endpoint: ResolvedEndpoint,
    texts: PromptFiles | None = None,
    concurrency: int = 8,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Judge answers of an evaluation by the rubric `judge_reading`.

    Args:
        evaluation: folder that the step `evaluate` wrote.
        out: receives every verdict as Parquet, and the numbers as JSON and as Parquet rows.
        log: where replies are kept.
        config: settings of the evaluation, its judge among them.

    Returns:
        {"judged": {SPLIT: {VIEW: {verdict: {"right", "other", "gain": Estimate}, "agreement":
        {"n", "raw", "kappa"}, "unread"}}}, "rubric": digest, and what was spent}. Each verdict is a
        share of questions, then controls; the gain is `right` − `other`. A question of which a side
        has no readable verdict is left out, and counted in "unread".

    Raises:
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        ConfigError: the rubric's file is wrong.
    """
    rubric = rubric_named(texts or PromptFiles(), RUBRIC)
    picked = _picked(pq.read_table(evaluation / ANSWERS_FILE).to_pylist(), config)
    items = [
        {"question": row["question"], "gold": row["gold"], "answer": row[side] or "(nothing)"}
        for row in picked
        for side in SIDES
    ]

    async def work() -> tuple[Judgement, LLMClient]:
        with RequestLog(log) as replies:
            client = LLMClient(endpoint, replies, concurrency, say)
            try:
                return await judge(client, rubric, items, progress=progress), client
            finally:
                await client.close()

    found, client = run_async(work())
    pairs = list(zip(found.items[::2], found.items[1::2], strict=True))
    write_table(out / VERDICTS_FILE, _rows(picked, pairs), VERDICTS)
    tree: dict[str, dict[str, Any]] = {}
    for split, view in dict.fromkeys((row["split"], row["view"]) for row in picked):
        own = [
            (row, both)
            for row, both in zip(picked, pairs, strict=True)
            if (row["split"], row["view"]) == (split, view)
        ]
        tree.setdefault(split, {})[view] = _judged(own, rubric.verdicts, config)
    write_json(out / JUDGED_FILE, {"judged": tree})
    about = {"foreign_target": "foreign_target" in _metrics(evaluation)}
    rows = [{**about, **row} for row in judged_rows(tree, least=config.min_controls)]
    write_table(out / RESULTS_FILE, rows, RESULTS)
    spent = client.usage
    return {
        "judged": tree,
        "rubric": rubric.digest,
        "requests": spent.requests,
        "cached_requests": spent.cached_requests,
        "failed_requests": spent.failed_requests,
        "estimated_requests": spent.estimated_requests,
        "tokens": {"prompt": spent.prompt_tokens, "completion": spent.completion_tokens},
        "cost_usd": spent.cost,
    }


def _metrics(evaluation: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((evaluation / METRICS_FILE).read_bytes())
    return found


def _picked(answers: Sequence[Answer], config: EvaluateConfig) -> list[Answer]:
    """The answers that are judged: of each split and view as many as were asked for, by seed."""
    settings = config.judge or JudgeConfig()
    ordered = sorted(
        answers, key=lambda row: digest([config.seed, row["example_id"], row["question"]])
    )
    taken: dict[tuple[str, str], list[Answer]] = {}
    for row in ordered:
        own = taken.setdefault((row["split"], row["view"]), [])
        if len(own) < settings.answers:
            own.append(row)
    return [row for key in sorted(taken) for row in taken[key]]


def _judged(
    pairs: Sequence[tuple[Answer, tuple[ItemVerdicts, ItemVerdicts]]],
    verdicts: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Shares of each verdict, and agreement, of one split and view."""
    read = [(row, both) for row, both in pairs if None not in (one.verdict for one in both)]
    controls = np.array([row["control_id"] for row, _ in read])
    out: dict[str, Any] = {}
    for verdict in verdicts:
        scores = {
            side: np.array([float(both[i].verdict == verdict) for _, both in read])
            for i, side in enumerate(SIDES)
        }
        estimate = sampler(columns(scores, controls), config)
        out[verdict] = {
            **{side: estimate(mean(SIDES, side)) for side in SIDES},
            "gain": estimate(lambda means: means[..., 0] - means[..., 1]),
        }
    passes = zip(*(one.verdicts for _, both in pairs for one in both), strict=True)
    out["agreement"] = dataclasses.asdict(agreement(*passes))
    out["unread"] = len(pairs) - len(read)
    return out


def _rows(
    picked: Sequence[Answer], pairs: Sequence[tuple[ItemVerdicts, ItemVerdicts]]
) -> list[dict[str, Any]]:
    names = ("split", "view", "control_id", "example_id", "question", "gold")
    return [
        {
            **{name: row[name] for name in names},
            "side": side,
            "answer": row[side],
            "first": one.verdicts[0],
            "second": one.verdicts[1],
        }
        for row, both in zip(picked, pairs, strict=True)
        for side, one in zip(SIDES, both, strict=True)
    ]
