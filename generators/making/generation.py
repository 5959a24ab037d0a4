"""A data set is generated in two tables: conversations, then questions about them.

Both functions give the same tables for the same replies, whatever the order in which these came,
and take from the request log every reply that was had before. Kinds that code draws need neither
endpoint nor log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError
from core.files import sha256_file
from core.progress import Progress
from core.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    garbage_collection_paused,
    read_conversations,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.tables import Dropped, Question
from generators.kinds import KINDS, OWN, asking_kinds, get_kind, written_kinds
from generators.kinds.base import Kind, WrittenKind
from generators.kinds.sources import ResolvedTexts
from generators.llm.budget import Usage
from generators.llm.client import LLMClient, run_async
from generators.llm.endpoint.resolve import ResolvedEndpoint, model_identity
from generators.llm.log.request_log import RequestLog
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig, GenerateSection, QuestionsConfig
from generators.making.controls import Control, ask_controls, ask_stimuli
from generators.making.crossing import share_stimuli
from generators.making.drawn import DRAWN, draw_controls, draw_questions, resolve_sources
from generators.making.questions import ask_questions
from generators.making.rows import conversation_rows
from generators.making.yes_no import add_yes_no, count_yes_no

STIMULUS_PROMPT = "stimulus"


def generate_conversations(
    out: Path,
    log: Path,
    *,
    config: ConversationsConfig,
    endpoint: ResolvedEndpoint | None,
    concurrency: int,
    progress: Progress,
    texts: PromptFiles | None = None,
    say: Callable[[str], None] = lambda line: None,
    sources: Mapping[str, ResolvedTexts] | None = None,
    earlier: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write `conversations.parquet` and `dropped.parquet` into the folder `out`.

    Args:
        out: folder of the artifact's data.
        log: the request log; replies in it are not asked for again.
        config: what is wanted.
        endpoint: the LLM; None where no kind needs one.
        concurrency: most requests at once.
        progress: told the requests done of the current stage.
        texts: prompts and seeds; None for the packaged ones.
        say: told a line where the endpoint takes schemas otherwise than by enforcing them.
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
    texts = texts or PromptFiles()
    check_conversations(config, texts)
    known_controls = list(
        dict.fromkeys(row.control for path in earlier for row in read_conversations(path))
    )

    async def work(endpoint: ResolvedEndpoint) -> tuple[list[Control], list[Dropped], LLMClient]:
        with RequestLog(log) as replies:
            client = LLMClient(endpoint, replies, concurrency, say)
            try:
                controls, dropped = await ask_controls(
                    config, texts, client, progress, known_controls
                )
                dropped += await ask_stimuli(controls, config, texts, client, progress)
                counts = {name: plan.stimuli for name, plan in config.kinds.items()}
                share_stimuli(controls, counts, config.filters, config.seed)
            finally:
                await client.close()
        return controls, dropped, client

    controls: list[Control] = []
    dropped: list[Dropped] = []
    client, generator = None, DRAWN
    if written := written_kinds(config.kinds):
        known = _needed(endpoint, written)
        controls, dropped, client = run_async(work(known))
        generator = known.identity
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
    log: Path,
    *,
    config: QuestionsConfig,
    endpoint: ResolvedEndpoint | None,
    concurrency: int,
    progress: Progress,
    texts: PromptFiles | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `questions.parquet` and `dropped.parquet` into the folder `out`.

    An LLM is asked about a control once, and its questions go to each of the control's rows,
    whatever the view. Questions of a drawn kind are made for each row.

    Args:
        conversations: the table to ask about, or the folder that it lies in.

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
    texts = texts or PromptFiles()
    path = conversations / CONVERSATIONS_FILE if conversations.is_dir() else conversations
    rows = read_conversations(path)
    yes_no = count_yes_no(config.per_control, config.yes_no)
    open_ended = config.model_copy(update={"per_control": config.per_control - yes_no})

    async def work(endpoint: ResolvedEndpoint) -> tuple[Any, list[Dropped], LLMClient]:
        with RequestLog(log) as replies:
            client = LLMClient(endpoint, replies, concurrency, say)
            try:
                asked, dropped = await ask_questions(rows, open_ended, texts, client, progress)
            finally:
                await client.close()
        return add_yes_no(asked, rows, yes_no, config.seed), dropped, client

    asked: dict[str, Any] = {}
    dropped: list[Dropped] = []
    client, generator = None, DRAWN
    if written := asking_kinds(rows):
        known = _needed(endpoint, written)
        asked, dropped, client = run_async(work(known))
        generator = known.identity
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


def generation_externals(
    section: GenerateSection,
    *,
    weights: str | None = None,
    sources: Mapping[str, ResolvedTexts] | None = None,
    imported: bool = False,
) -> dict[str, dict[str, Any]]:
    """Collect what decides each table besides its config: generator, prompts, seeds, sources.

    Args:
        section: the YAML's section.
        weights: digest of the embedded model's GGUF file, where that model is asked.
        sources: texts of the kinds that read any; None to find them now.
        imported: whether the conversations are imported, and only questions are written.

    Returns:
        for each artifact the generator's identity, where an LLM is needed, and how its replies are
        held to their schemas where that is not the default; the digest of each prompt and seeds
        file; and what the conversations' texts are, where they are cut from any.

    Raises:
        ConfigError: an unknown kind, or a file that is not there.
        DataError: a source of texts is not there.
    """
    texts = texts_of(section)
    kinds: Sequence[Kind] = [get_kind(name) for name in section.conversations.kinds]
    if imported:  # rows of any kind
        kinds = [*(kind for kind in KINDS.values() if isinstance(kind, WrittenKind)), OWN]
    written = [kind for kind in kinds if isinstance(kind, WrittenKind)]
    generator: dict[str, Any] = {}
    if written:
        generator["generator"] = model_identity(section.endpoint, weights)
        if section.endpoint.structured != "schema":
            # tables from before there was a choice keep their keys
            generator["structured"] = section.endpoint.structured
    made = [] if imported else written
    stimuli = any("stimulus" in kind.views for kind in made)
    if sources is None:
        sources = resolve_sources(section.conversations)
    found = {name: dict(source.identity) for name, source in sources.items()}
    before = sorted(sha256_file(path) for path in earlier_tables(section))
    return {
        "conversations": {
            **generator,
            "texts": texts.digests(
                prompts=(
                    *(kind.control_prompt for kind in made),
                    *((STIMULUS_PROMPT,) if stimuli else ()),
                ),
                seeds=(
                    *(kind.seeds for kind in made),
                    *(name for kind in kinds for name in kind.control_texts),
                    *(("everyday",) if stimuli else ()),
                ),
            ),
            **({"sources": found} if found else {}),
            **({"earlier": before} if before else {}),
        },
        "questions": {
            **generator,
            "texts": texts.digests(
                prompts=tuple(name for kind in written for name in kind.question_prompts),
                seeds=tuple({name for kind in kinds for name in kind.question_texts}),
            ),
        },
    }


def needs_llm(config: ConversationsConfig) -> bool:
    """Tell whether an LLM writes any of the kinds in `config`.

    Raises:
        ConfigError: an unknown kind.
    """
    return bool(written_kinds(config.kinds))


def earlier_tables(section: GenerateSection) -> list[Path]:
    """Find the conversations tables of the earlier versions that `section` names.

    Raises:
        DataError: one is not there.
    """
    found: list[Path] = []
    for name in section.earlier:
        path = Path(name).expanduser()
        # a folder of tables, an artifact, or an import
        folders = (path, path / "data", path / "conversations")
        places = (path, *(folder / CONVERSATIONS_FILE for folder in folders))
        table = next((place for place in places if place.is_file()), None)
        if table is None:
            raise DataError(
                f"generate.earlier: {name}: no {CONVERSATIONS_FILE} there; expected such a file or "
                "the folder that holds it."
            )
        found.append(table)
    return found


def texts_of(section: GenerateSection) -> PromptFiles:
    """Open the prompts and seeds that `section` names."""
    return PromptFiles(
        prompts=Path(section.prompts) if section.prompts else None,
        seeds=Path(section.seeds) if section.seeds else None,
    )


def check_conversations(config: ConversationsConfig, texts: PromptFiles) -> None:
    """Check `config` against kinds, seeds and sources before anything is requested.

    Raises:
        ConfigError: an unknown kind, a view that a kind lacks, a source that it needs or cannot
            read, or an unknown held-out category.
    """
    known: set[str] = set()
    told_by_rows: set[str] = set()
    for name, plan in config.kinds.items():
        kind = get_kind(name)
        categories = kind.categories(texts)
        if categories is None:
            told_by_rows.add(name)
        known |= {f"{name}/{category}" for category in categories or ()}
        if bool(kind.endings) != (plan.source is not None):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.source: "
                + (
                    "is missing; name a file, or a folder of files, that end in "
                    f"{', '.join(kind.endings)}."
                    if kind.endings
                    else "this kind reads no texts; leave it out."
                )
            )
        if categories is not None and (
            unknown := [one for one in plan.categories or () if one not in categories]
        ):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.categories: there is no {unknown[0]!r}; "
                f"expected any of {', '.join(categories)}."
            )
        if wrong := sorted(set(plan.views or ()) - set(kind.views)):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.views: {wrong[0]!r} is no view of this kind; "
                f"it has {', '.join(kind.views)}."
            )
    for category in config.splits.test_ood:
        kind_of = category.partition("/")[0]
        if category not in known and kind_of in config.kinds and kind_of not in told_by_rows:
            raise ConfigError(
                f"generate.conversations.splits.test_ood: there is no category {category!r}; "
                f"expected one of {', '.join(sorted(known))}."
            )


def _needed(endpoint: ResolvedEndpoint | None, kinds: Iterable[str]) -> ResolvedEndpoint:
    if endpoint is None:
        raise ConfigError(
            f"generate.endpoint: got none; an LLM has to write {', '.join(kinds)}. Pass one."
        )
    return endpoint


def _spent(client: LLMClient | None, dropped: list[Dropped]) -> dict[str, Any]:
    spent = Usage() if client is None else client.usage
    return {
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
        "requests": spent.requests,
        "cached_requests": spent.cached_requests,
        "failed_requests": spent.failed_requests,
        "estimated_requests": spent.estimated_requests,
        "tokens": {"prompt": spent.prompt_tokens, "completion": spent.completion_tokens},
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
