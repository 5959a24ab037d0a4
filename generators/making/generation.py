"""A data set is generated in two tables: conversations, then questions about them.

Both functions give the same tables for the same replies, whatever the order in which these came,
and take from the request log every reply that it already has. Kinds that code draws need neither
endpoint nor log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.progress import Progress, silent
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    garbage_collection_paused,
    read_conversations,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.records.tables import Dropped, Question
from generators.kinds import asking_kinds, written_kinds
from generators.kinds.sources import ResolvedTexts
from generators.llm.cached_client import LLMClient
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.making.checks import check_conversations
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.controls import Control, ask_controls, ask_stimuli
from generators.making.crossing import share_stimuli
from generators.making.drawn import DRAWN, draw_controls, draw_questions, resolve_sources
from generators.making.questions import ask_questions
from generators.making.rows import conversation_rows
from generators.making.yes_no import add_yes_no, count_yes_no

_ENDPOINT = "generate.endpoint"


def generate_conversations(
    out: Path,
    session: LLMSession,
    *,
    config: ConversationsConfig,
    progress: Progress = silent,
    sources: Mapping[str, ResolvedTexts] | None = None,
    earlier: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write `conversations.parquet` and `dropped.parquet` into the folder `out`.

    Args:
        out: folder of the artifact's data.
        session: the LLM, which kinds that code draws do not need; prompts and seeds.
        config: what is wanted.
        progress: told the requests done of the current stage.
        sources: texts of the kinds that read any; None to find them now.
        earlier: conversations tables whose controls must not come again.

    Returns:
        counts: `controls`, `examples`, `by_kind` (kind → planned and kept), `by_split` (split →
        controls), `dropped` (reason → rows), and what was spent (`requests`, `cached_requests`,
        `failed_requests`, `estimated_requests` (whose tokens the endpoint did not count: the most
        that they can have been is in the sums), `tokens`, `cost_usd`, which is None where the
        price is not known, and `structured`, how replies were held to their schemas).

    Raises:
        ConfigError: an unknown kind, view or held-out category, or a bad prompt or seeds file.
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        DataError: not one row of a kind could be kept, or a source of texts cannot be read.
    """
    texts = session.texts
    check_conversations(config, texts)
    known_controls = list(
        dict.fromkeys(row.control for path in earlier for row in read_conversations(path))
    )

    async def write(client: LLMClient) -> tuple[list[Control], list[Dropped]]:
        controls, dropped = await ask_controls(config, texts, client, progress, known_controls)
        dropped += await ask_stimuli(controls, config, texts, client, progress)
        counts = {name: plan.stimuli for name, plan in config.kinds.items()}
        share_stimuli(controls, counts, config.filters, config.seed)
        return controls, dropped

    controls: list[Control] = []
    dropped: list[Dropped] = []
    client, generator = None, DRAWN
    if written := written_kinds(config.kinds):
        endpoint = session.require_endpoint(_ENDPOINT, written)
        (controls, dropped), client = session.run(endpoint, write)
        generator = endpoint.identity
    sources = resolve_sources(config) if sources is None else sources
    with garbage_collection_paused():
        drawn, not_drawn = draw_controls(config, texts, sources, progress, known_controls)
    order = list(config.kinds)
    controls = sorted([*controls, *drawn], key=lambda control: order.index(control.kind.name))
    dropped += not_drawn
    for kind in config.kinds:
        if not any(control.kind.name == kind for control in controls):
            raise DataError(_nothing_kept(kind, dropped))
    with garbage_collection_paused():
        rows = conversation_rows(controls, config, generator, texts)
    write_conversations(out / CONVERSATIONS_FILE, rows)
    write_dropped(out / DROPPED_FILE, dropped)
    kept = Counter(control.kind.name for control in controls)
    splits = {row.control_id: row.split for row in rows if row.split != "test_seen"}
    return {
        "controls": len(splits),
        "examples": len(rows),
        "by_kind": {
            kind: {"planned": plan.controls, "kept": kept[kind]}
            for kind, plan in config.kinds.items()
        },
        "by_split": dict(sorted(Counter(splits.values()).items())),
        "by_view": dict(sorted(Counter(row.view for row in rows).items())),
        **_spent(client, dropped),
    }


def generate_questions(
    conversations: Path,
    out: Path,
    session: LLMSession,
    *,
    config: QuestionsConfig,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write `questions.parquet` and `dropped.parquet` into the folder `out`.

    An LLM is asked about a control once, and its questions go to each of the control's rows,
    whatever the view. Questions of a drawn kind are made for each row.

    Args:
        conversations: the folder of the table to ask about.

    The other arguments are those of `generate_conversations`.

    Returns:
        counts: `questions`, `questions_asked` (a control's own, before they go to its rows),
        `by_type`, `controls_without_questions`, `dropped` (reason → rows), and what was spent.

    Raises:
        ConfigError: a kind has none of the types asked for, or a bad prompt file.
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        DataError: `conversations` is no such table, or there is not one question.
    """
    texts = session.texts
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    yes_no = count_yes_no(config.per_control, config.yes_no)
    open_ended = config.model_copy(update={"per_control": config.per_control - yes_no})

    async def write(client: LLMClient) -> tuple[dict[str, Any], list[Dropped]]:
        asked, dropped = await ask_questions(rows, open_ended, texts, client, progress)
        return add_yes_no(asked, rows, yes_no, config.seed), dropped

    asked: dict[str, Any] = {}
    dropped: list[Dropped] = []
    client, generator = None, DRAWN
    if written := asking_kinds(rows):
        endpoint = session.require_endpoint(_ENDPOINT, written)
        (asked, dropped), client = session.run(endpoint, write)
        generator = endpoint.identity
    with garbage_collection_paused():
        drawn = [row for row in rows if row.kind not in written]
        own: dict[str, list[Question]] = {
            row.example_id: found for row, found in draw_questions(drawn, config, texts, progress)
        }
        for row in rows:
            if row.kind in written:
                found = asked.get(row.control_id, ())
                own[row.example_id] = [one.for_row(row.example_id, generator) for one in found]
        questions = [question for row in rows for question in own[row.example_id]]
        if not questions:
            raise DataError(_nothing_kept("questions", dropped))
        write_questions(out / QUESTIONS_FILE, questions)
        write_dropped(out / DROPPED_FILE, dropped)
        # rows of a control share questions: counted once
        of_control: dict[str, dict[tuple[str, str], Question]] = {}
        for row in rows:
            mine = of_control.setdefault(row.control_id, {})
            for question in own[row.example_id]:
                mine[question.question, question.answer] = question
        distinct = [question for found in of_control.values() for question in found.values()]
    return {
        "questions": len(questions),
        "questions_asked": len(distinct),
        "by_type": dict(sorted(Counter(question.type for question in distinct).items())),
        "controls_without_questions": sum(1 for found in of_control.values() if not found),
        **_spent(client, dropped),
    }


def _spent(client: LLMClient | None, dropped: list[Dropped]) -> dict[str, Any]:
    spent = Usage() if client is None else client.usage
    return {
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
        **spent.to_json(),
        "cost_usd": 0.0 if client is None else spent.cost,
        "structured": None if client is None else client.form,
    }


def _nothing_kept(what: str, dropped: list[Dropped]) -> str:
    reasons: Counter[str] = Counter(row.reason for row in dropped)
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    why = ""
    if reasons:
        commonest = reasons.most_common(1)[0][0]
        example = next((row for row in dropped if row.reason == commonest and row.detail), None)
        why = "" if example is None else f" For example, {commonest}: {example.detail[:160]}."
    return (
        f"generate: no reply for {what} could be kept ({counted or 'nothing was asked'}).{why} "
        "Try another model at generate.endpoint, another source of texts, or ease the filters."
    )
