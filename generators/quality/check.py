"""The quality check flags rows, has an LLM judge a sample, and drops what the config says.

An LLM answers two things, each of a sample drawn by seed:

* *Answerability without activations* (generators.quality.answerability).
* *Faithfulness* (generators.quality.judge): whether answers follow from their controls, and
  completions keep to them, in two passes with their agreement. The judge itself is put to the test:
  it also gets each answer and completion under another control's text, where it should find no
  faithfulness. A judge that hardly tells the two apart says nothing about the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.documents.canonical import digest
from core.errors import DataError
from core.files import write_json
from core.progress import Progress, silent
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_questions,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.records.tables import Conversation, Question
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply_json import Rejection
from generators.llm.prompt_files import PromptFiles
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.quality.answerability import (
    PROMPT,
    answer_without_context,
    answerability,
    sample_items,
    token_f1,
)
from generators.quality.config import QualityConfig
from generators.quality.control_effects import (
    flag_ignored,
    record_effects,
    spread_effects,
    summarise_effects,
)
from generators.quality.describe import count_obedience
from generators.quality.findings import (
    QUALITY_FILE,
    Answerability,
    Faithful,
    QualityFindings,
)
from generators.quality.flags import Flags, apply_flags, flag_rows, segment_text
from generators.quality.judge import Judgement, judge, rubric_named

ANSWER_RUBRIC, COMPLETION_RUBRIC = "judge_answer", "judge_completion"
UNFAITHFUL = "unfaithful"
"""The verdict of both rubrics that makes a flag."""


def prompts_of(config: QualityConfig) -> tuple[str, ...]:
    """Name the prompts that `config` needs; none where no LLM is asked."""
    return (
        *((PROMPT,) if config.answerability else ()),
        *((ANSWER_RUBRIC, COMPLETION_RUBRIC) if config.faithfulness else ()),
    )


def check_quality(
    conversations: Path,
    questions: Path,
    out: Path,
    session: LLMSession,
    *,
    config: QualityConfig,
    progress: Progress = silent,
    effects: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write both tables with their flags, without the questions that `config.drop` leaves out.

    Also writes `dropped.parquet`, and `quality.json` with all that was measured.

    Args:
        conversations: folder of the conversations table.
        questions: folder of the questions table.
        out: folder of the artifact's data.
        session: the LLM, where `config` asks one; prompts and rubrics.
        config: what is flagged, measured and dropped.
        progress: told what is done of the current stage.
        effects: control effect of rows with a completion by example id, in nats; None where it was
            not measured.

    Returns:
        counts: `questions` that are left, `dropped` (reason → rows), `quality` (as in
        `quality.json`), and what was spent (`Usage.to_json`).

    Raises:
        ConfigError: an LLM is needed and none is given, or a rubric is none.
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        DataError: a table is none, or no question is left.
    """
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    known = {row.example_id for row in rows}
    asked = [q for q in read_questions(questions / QUESTIONS_FILE) if q.example_id in known]
    flags = flag_rows(rows, asked, config.rules)
    if effects is not None and config.control_effect is not None:
        spread = spread_effects(rows, effects)
        for example, fault in flag_ignored(rows, spread, config.control_effect).items():
            flags.conversations.setdefault(example, []).append(fault)
    measured = _Measured()
    spent = Usage().to_json() | {"cost_usd": 0.0}
    if needed := prompts_of(config):
        endpoint = session.require_endpoint("quality.endpoint", needed)
        check = _Check(rows, asked, flags, config, session.texts, progress)
        measured, client = session.run(endpoint, check.measure)
        spent = client.usage.to_json()
    marked, kept, dropped = apply_flags(rows, asked, flags, config.drop)
    if not kept:
        raise DataError(
            f"quality.drop: no question is left of {len(asked):,}; dropped by "
            f"{', '.join(config.drop)}. Ease the thresholds, or drop fewer flags."
        )
    quality = QualityFindings(
        **dict(flags.count(len(rows) + len(asked))),
        answerability=measured.answerability,
        faithfulness=measured.faithfulness,
        control_effect=None if effects is None else summarise_effects(rows, effects),
        obedience=count_obedience(rows),
    ).to_json()
    write_conversations(out / CONVERSATIONS_FILE, record_effects(marked, effects or {}))
    write_questions(out / QUESTIONS_FILE, kept)
    write_dropped(out / DROPPED_FILE, dropped)
    write_json(out / QUALITY_FILE, quality)
    return {
        "questions": len(kept),
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
        "quality": quality,
        **spent,
    }


@dataclass(frozen=True, slots=True)
class _Measured:
    """What an LLM found; None where it was not asked."""

    answerability: Answerability | None = None
    faithfulness: dict[str, Faithful | None] | None = None


class _Check:
    """What an LLM is asked about a sample; its findings go to the flags."""

    def __init__(
        self,
        conversations: Sequence[Conversation],
        questions: Sequence[Question],
        flags: Flags,
        config: QualityConfig,
        texts: PromptFiles,
        progress: Progress,
    ) -> None:
        self._rows = conversations
        self._questions = questions
        self._flags = flags
        self._config = config
        self._texts = texts
        self._progress = progress
        self._items = sample_items(conversations, questions, config.sample, config.seed)

    async def measure(self, client: LLMClient) -> _Measured:
        """Measure answerability and faithfulness, each where the config asks for it."""
        answerable = await self._answerability(client) if self._config.answerability else None
        if not self._config.faithfulness:
            return _Measured(answerable)
        answers, completions = await self._answers(client), await self._completions(client)
        return _Measured(answerable, {"answers": answers, "completions": completions})

    async def _answerability(self, client: LLMClient) -> Answerability:
        guesses = await answer_without_context(client, self._texts, self._items, self._progress)
        config = self._config
        told = answerability(self._items, guesses, config.answerable, config.seed)
        self._flag_items(
            {
                item.key: Rejection("answerable", f"from the question alone: {answer[:80]}")
                for item, answer in zip(self._items, guesses, strict=True)
                if answer is not None and token_f1(answer, item.answer) >= config.answerable
            }
        )
        return told

    async def _answers(self, client: LLMClient) -> Faithful | None:
        if not self._items:
            return None
        own = await self._judge(
            client,
            ANSWER_RUBRIC,
            [_said(item.control, item.question, item.answer) for item in self._items],
        )
        swapped = await self._judge(
            client,
            ANSWER_RUBRIC,
            [
                _said(item.other_control, item.question, item.answer)
                for item in self._items
                if item.other_control is not None
            ],
        )
        self._flag_items(
            {
                item.key: Rejection("unfaithful_answer", item.answer[:80])
                for item, judged in zip(self._items, own.items, strict=True)
                if judged.agreed and judged.verdict == UNFAITHFUL
            }
        )
        return Faithful(own=own.summary(), swapped=swapped.summary())

    async def _completions(self, client: LLMClient) -> Faithful | None:
        rows = [row for row in self._rows if segment_text(row, "completion") is not None]
        drawn = sorted(rows, key=lambda row: digest([self._config.seed, row.example_id]))
        rows = drawn[: self._config.sample]
        if not rows:
            return None
        own = await self._judge(client, COMPLETION_RUBRIC, [_kept(row, row) for row in rows])
        others = [(row, _of_another_control(rows, place)) for place, row in enumerate(rows)]
        swapped = await self._judge(
            client,
            COMPLETION_RUBRIC,
            [_kept(other, row) for row, other in others if other is not None],
        )
        for row, judged in zip(rows, own.items, strict=True):
            if judged.agreed and judged.verdict == UNFAITHFUL:
                fault = Rejection(
                    "unfaithful_completion", str(segment_text(row, "completion"))[:80]
                )
                self._flags.conversations.setdefault(row.example_id, []).append(fault)
        return Faithful(own=own.summary(), swapped=swapped.summary())

    async def _judge(
        self, client: LLMClient, rubric: str, items: Sequence[Mapping[str, str]]
    ) -> Judgement:
        return await judge(
            client,
            rubric_named(self._texts, rubric),
            items,
            passes=self._config.passes,
            progress=self._progress,
        )

    def _flag_items(self, faults: Mapping[tuple[str, str, str], Rejection]) -> None:
        """Add each fault to the sampled question's rows in every view."""
        control_of = {row.example_id: row.control_id for row in self._rows}
        for question, own in zip(self._questions, self._flags.questions, strict=True):
            key = (control_of[question.example_id], question.question, question.answer)
            if key in faults:
                own.append(faults[key])


def _said(control: str, question: str, answer: str) -> dict[str, str]:
    return {"control": control, "question": question, "answer": answer}


def _kept(instructed: Conversation, row: Conversation) -> dict[str, str]:
    """Return what the completion rubric reads: `row`'s reply under the control of `instructed`."""
    return {
        "control": instructed.control,
        "stimulus": segment_text(row, "stimulus") or "",
        "completion": segment_text(row, "completion") or "",
    }


def _of_another_control(rows: Sequence[Conversation], place: int) -> Conversation | None:
    """Find the next row after `place` of the same kind and another control."""
    row = rows[place]
    behind = (rows[(place + step) % len(rows)] for step in range(1, len(rows)))
    return next(
        (one for one in behind if one.kind == row.kind and one.control_id != row.control_id), None
    )
