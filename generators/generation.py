"""Generation by an LLM: conversations, and questions about them.

Both functions give the same tables for the same replies, whatever the order in which these came,
and take from the request log every reply that was had before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from generators.asking import Asker, run
from generators.canonical import digest
from generators.controls import Control, ask_controls, ask_stimuli
from generators.endpoint import ResolvedEndpoint, model_identity
from generators.errors import ConfigError, DataError
from generators.generate_config import ConversationsConfig, GenerateSection, QuestionsConfig
from generators.kinds import kind_named
from generators.progress import Progress
from generators.questions import ask_questions
from generators.request_log import RequestLog
from generators.schema import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    Conversation,
    Dropped,
    Message,
    View,
    control_id,
    example_id,
    read_conversations,
    write_conversations,
    write_dropped,
    write_questions,
)
from generators.splits import Member, grouped_splits
from generators.texts import Texts

STIMULUS_PROMPT = "stimulus"


def generate_conversations(
    out: Path,
    log: Path,
    *,
    config: ConversationsConfig,
    endpoint: ResolvedEndpoint,
    concurrency: int,
    progress: Progress,
    texts: Texts | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `conversations.parquet` and `dropped.parquet` into the folder `out`.

    Args:
        out: folder of the artifact's data.
        log: the request log; replies in it are not asked for again.
        config: what is wanted.
        endpoint: the LLM.
        concurrency: most requests at once.
        progress: told the requests done of the current stage.
        texts: prompts and seeds; None for the packaged ones.
        say: told a line where the endpoint takes schemas otherwise than by enforcing them.

    Returns:
        counts: `controls`, `examples`, `by_kind` (kind → planned and kept), `by_split` (split →
        controls), `dropped` (reason → rows), and what was spent (`requests`, `cached_requests`,
        `failed_requests`, `tokens`, `cost_usd`, which is None where the price is not known, and
        `structured`, how replies were held to their schemas).

    Raises:
        ConfigError: an unknown kind, view or held-out category, or a bad prompt or seeds file.
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        DataError: not one reply of a kind could be kept.
    """
    texts = texts or Texts()
    check_conversations(config, texts)

    async def work() -> tuple[list[Control], list[Dropped], Asker]:
        with RequestLog(log) as replies:
            asker = Asker(endpoint, replies, concurrency, say)
            try:
                controls, dropped = await ask_controls(config, texts, asker, progress)
                dropped += await ask_stimuli(controls, config, texts, asker, progress)
            finally:
                await asker.close()
        return controls, dropped, asker

    controls, dropped, asker = run(work())
    for kind in config.kinds:
        if not any(control.kind.name == kind for control in controls):
            raise DataError(_nothing_kept(kind, dropped))
    rows = _rows(controls, config, endpoint.identity, texts)
    write_conversations(out / CONVERSATIONS_FILE, rows)
    write_dropped(out / DROPPED_FILE, dropped)
    kept = Counter(control.kind.name for control in controls)
    splits = {row.control_id: row.split for row in rows}
    return {
        "controls": len(splits),
        "examples": len(rows),
        "by_kind": {
            kind: {"planned": plan.controls, "kept": kept[kind]}
            for kind, plan in config.kinds.items()
        },
        "by_split": dict(sorted(Counter(splits.values()).items())),
        "by_view": dict(sorted(Counter(row.view for row in rows).items())),
        **_spent(asker, dropped),
    }


def generate_questions(
    conversations: Path,
    out: Path,
    log: Path,
    *,
    config: QuestionsConfig,
    endpoint: ResolvedEndpoint,
    concurrency: int,
    progress: Progress,
    texts: Texts | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write `questions.parquet` and `dropped.parquet` into the folder `out`.

    A control is asked about once; its questions go to each of its rows, whatever the view.

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
        DataError: `conversations` is no such table, or not one reply could be kept.
    """
    texts = texts or Texts()
    path = conversations / CONVERSATIONS_FILE if conversations.is_dir() else conversations
    rows = read_conversations(path)

    async def work() -> tuple[Any, list[Dropped], Asker]:
        with RequestLog(log) as replies:
            asker = Asker(endpoint, replies, concurrency, say)
            try:
                asked, dropped = await ask_questions(rows, config, texts, asker, progress)
            finally:
                await asker.close()
        return asked, dropped, asker

    asked, dropped, asker = run(work())
    questions = [
        question.for_row(row.example_id, endpoint.identity)
        for row in rows
        for question in asked.get(row.control_id, ())
    ]
    if not questions:
        raise DataError(_nothing_kept("questions", dropped))
    write_questions(out / QUESTIONS_FILE, questions)
    write_dropped(out / DROPPED_FILE, dropped)
    own = [question for found in asked.values() for question in found]
    return {
        "questions": len(questions),
        "questions_asked": len(own),
        "by_type": dict(sorted(Counter(question.type for question in own).items())),
        "controls_without_questions": len({row.control_id for row in rows})
        - sum(1 for found in asked.values() if found),
        **_spent(asker, dropped),
    }


def generation_externals(
    section: GenerateSection, *, weights: str | None = None
) -> dict[str, dict[str, Any]]:
    """What decides the tables besides their configs: `conversations` and `questions`, apart.

    Args:
        section: the YAML's section.
        weights: digest of the embedded model's GGUF file, where that model is asked.

    Returns:
        for each artifact the generator's identity, how replies are held to their schemas where that
        is not the default, and the digest of each prompt and seeds file.

    Raises:
        ConfigError: an unknown kind, or a file that is not there.
    """
    texts = texts_of(section)
    generator: dict[str, Any] = {"generator": model_identity(section.endpoint, weights)}
    if section.endpoint.structured != "schema":
        # tables from before there was a choice keep their keys
        generator["structured"] = section.endpoint.structured
    kinds = [kind_named(name) for name in section.conversations.kinds]
    stimuli = any("stimulus" in kind.views for kind in kinds)
    return {
        "conversations": {
            **generator,
            "texts": texts.digests(
                prompts=(
                    *(kind.control_prompt for kind in kinds),
                    *((STIMULUS_PROMPT,) if stimuli else ()),
                ),
                seeds=(
                    *(kind.seeds for kind in kinds),
                    *(name for kind in kinds for name in kind.control_texts),
                    *(("everyday",) if stimuli else ()),
                ),
            ),
        },
        "questions": {
            **generator,
            "texts": texts.digests(
                prompts=tuple(name for kind in kinds for name in kind.question_prompts),
                seeds=tuple({name for kind in kinds for name in kind.question_texts}),
            ),
        },
    }


def texts_of(section: GenerateSection) -> Texts:
    """The prompts and seeds that `section` names."""
    return Texts(
        prompts=Path(section.prompts) if section.prompts else None,
        seeds=Path(section.seeds) if section.seeds else None,
    )


def check_conversations(config: ConversationsConfig, texts: Texts) -> None:
    """Find what is wrong with `config` before anything is asked.

    Raises:
        ConfigError: an unknown kind, a view that a kind lacks, or an unknown held-out category.
    """
    known: set[str] = set()
    for name, plan in config.kinds.items():
        kind = kind_named(name)
        known |= {f"{name}/{category}" for category in texts.by_category(kind.seeds)}
        if wrong := sorted(set(plan.views or ()) - set(kind.views)):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.views: {wrong[0]!r} is no view of this kind; "
                f"it has {', '.join(kind.views)}."
            )
    for category in config.splits.test_ood:
        if category not in known and category.partition("/")[0] in config.kinds:
            raise ConfigError(
                f"generate.conversations.splits.test_ood: there is no category {category!r}; "
                f"expected one of {', '.join(sorted(known))}."
            )


def _rows(
    controls: list[Control], config: ConversationsConfig, generator: str, texts: Texts
) -> list[Conversation]:
    """Rows of all controls and their views, in the order of planning."""
    members = [
        Member(
            label=control.label,
            control=control.text,
            kind=control.kind.name,
            category=control.category,
        )
        for control in controls
    ]
    # a small plan may not reach a held-out category; a name that no seed has was refused before
    present = {f"{member.kind}/{member.category}" for member in members}
    held_out = tuple(name for name in config.splits.test_ood if name in present)
    splits = grouped_splits(members, config.splits.model_copy(update={"test_ood": held_out}))
    prompts = {control.kind.name: texts.prompt(control.kind.control_prompt) for control in controls}
    rows: list[Conversation] = []
    for control, (group, split) in zip(controls, splits, strict=True):
        for view in config.kinds[control.kind.name].views or control.kind.views:
            messages = _messages(control, view, config.seed)
            if messages is None:
                continue
            rows.append(
                Conversation(
                    example_id=example_id(control.label, view, messages),
                    control_id=control_id(control.kind.name, control.text),
                    group_id=group,
                    kind=control.kind.name,
                    category=control.category,
                    label=control.label,
                    view=view,
                    split=split,
                    source="generator",
                    messages=messages,
                    provenance={
                        "generator": generator,
                        "prompt": prompts[control.kind.name].digest,
                        "requests": [
                            control.request,
                            *([control.stimulus_request] if len(messages) > 1 else []),
                        ],
                        "seed": config.seed,
                    },
                )
            )
    return rows


def _messages(control: Control, view: View, seed: int) -> tuple[Message, ...] | None:
    """The conversation of `control` in `view`; None if it needs a stimulus and has none."""
    if view == "control":
        return (Message(role="user", content=control.text, segment="control"),)
    if control.stimulus is None:
        return None
    stimulus = Message(role="user", content=control.stimulus, segment="stimulus")
    if view == "system":
        return (Message(role="system", content=control.text, segment="control"), stimulus)
    draw = Random(digest([seed, "acknowledgement", control.text]))
    said = draw.choice(control.kind.acknowledgements)
    return (
        Message(role="user", content=control.text, segment="control"),
        Message(role="assistant", content=said, segment="control"),
        stimulus,
    )


def _spent(asker: Asker, dropped: list[Dropped]) -> dict[str, Any]:
    spent = asker.spent
    return {
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
        "requests": spent.requests,
        "cached_requests": spent.cached_requests,
        "failed_requests": spent.failed_requests,
        "tokens": {"prompt": spent.prompt_tokens, "completion": spent.completion_tokens},
        "cost_usd": spent.cost,
        "structured": asker.form,
    }


def _nothing_kept(what: str, dropped: list[Dropped]) -> str:
    reasons: Mapping[str, int] = Counter(row.reason for row in dropped)
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return (
        f"generate: no reply for {what} could be kept ({counted or 'nothing was asked'}). "
        "Try another model at generate.endpoint, or ease the filters."
    )
