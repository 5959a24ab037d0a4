"""Code draws the controls and questions of the kinds that need no LLM."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from core.errors import DataError
from core.progress import Progress
from core.records.tables import Conversation, Dropped, Question, QuestionType
from generators.kinds import drawn_kinds, get_kind
from generators.kinds.base import DrawnKind, QuestionAnswer
from generators.kinds.sources import ENDINGS, ResolvedTexts, resolve_texts
from generators.llm.chat.reply_json import Rejection
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.controls import Control, Stimulus
from generators.making.questions import questions_by_type
from generators.rules.duplicates import Duplicates
from generators.rules.words import normalize_line

DRAWN = "drawn"
"""What stands as `generator` in the provenance of rows that no LLM wrote."""
_EVERY = 1000  # rows between two tellings of progress


def resolve_sources(config: ConversationsConfig) -> dict[str, ResolvedTexts]:
    """Resolve the text sources of all kinds that read one.

    Raises:
        DataError: nothing that can be read is there.
    """
    return {
        name: resolve_texts(plan.source, get_kind(name).endings or ENDINGS)
        for name, plan in config.kinds.items()
        if plan.source is not None
    }


def draw_controls(
    config: ConversationsConfig,
    texts: PromptFiles,
    sources: Mapping[str, ResolvedTexts],
    progress: Progress,
    earlier: Sequence[str] = (),
) -> tuple[list[Control], list[Dropped]]:
    """Draw the controls of every drawn kind in the config's order; also return what was dropped.

    Args:
        config: what is wanted.
        texts: prompts and seeds.
        sources: the texts of each kind that reads any.
        progress: told the controls drawn.
        earlier: controls of earlier versions, which must not come again.

    Raises:
        DataError: a source of texts cannot be read.
    """
    controls: list[Control] = []
    dropped: list[Dropped] = []
    for name, kind in drawn_kinds(config.kinds).items():
        want = config.kinds[name].controls
        left = Counter(config.kinds[name].categories)
        kept = 0
        for found in _distinct(kind, config, texts, sources.get(name), earlier):
            if isinstance(found, Dropped):
                dropped.append(found)
                continue
            if config.kinds[name].categories is not None:
                if not left[found.category]:
                    continue
                left[found.category] -= 1
            controls.append(found)
            kept += 1
            if kept % _EVERY == 0 or kept == want:
                progress(kept, want, f"{name} controls")
            if kept == want:
                break
    return controls, dropped


def _distinct(
    kind: DrawnKind,
    config: ConversationsConfig,
    texts: PromptFiles,
    source: ResolvedTexts | None,
    earlier: Sequence[str],
) -> Iterator[Control | Dropped]:
    """Yield the kind's controls in order, leaving out repeated texts."""
    seen = {normalize_line(text) for text in earlier}
    # texts from outside may be copies with a word changed, which must not stand in two splits
    alike = None
    if kind.drops_near_duplicates:
        alike = Duplicates(config.filters.near_duplicate, earlier)
    numbers = itertools.count()
    for found in kind.controls(config.seed, texts, source):
        if isinstance(found, Dropped):
            yield found
            continue
        key, fault = normalize_line(found.text), None
        if key in seen:
            fault = Rejection("duplicate", "the text of an earlier control")
        elif alike is not None:
            fault = alike.find(found.text, found.label)
        if fault is not None:
            yield Dropped(
                reason=fault.reason,
                where=f"control {found.label}",
                detail=fault.detail,
                raw=found.text,
            )
            continue
        seen.add(key)
        if alike is not None:
            alike.add(found.text, found.label)
        yield Control(
            kind=kind,
            category=found.category,
            label=found.label,
            text=found.text,
            slot=next(numbers),
            stimuli=tuple(Stimulus(text=text) for text in found.stimuli),
            facts=found.facts,
        )


def draw_questions(
    rows: Sequence[Conversation], config: QuestionsConfig, texts: PromptFiles, progress: Progress
) -> Iterator[tuple[Conversation, list[Question]]]:
    """Yield each row of a drawn kind with its questions, types in the config's order.

    A kind may have fewer questions for a row than are asked for; then the row gets those.

    Raises:
        ConfigError: a kind has none of the types asked for.
        DataError: a row does not hold the facts that its kind asks about.
    """
    kinds = drawn_kinds(dict.fromkeys(row.kind for row in rows))
    wanted = {name: questions_by_type(kind, config) for name, kind in kinds.items()}
    drawn = [row for row in rows if row.kind in kinds]
    provenance = {"generator": DRAWN, "seed": config.seed}  # one for all: there are many questions
    for done, row in enumerate(drawn, 1):
        if not isinstance(row.provenance.get("facts"), dict):
            raise DataError(
                f"conversation {row.example_id}: its provenance has no facts, which questions of "
                f"the kind {row.kind!r} are made from. Only rows that were generated here have."
            )
        yield row, _of_row(kinds[row.kind], row, wanted[row.kind], provenance, texts)
        if done % _EVERY == 0 or done == len(drawn):
            progress(done, len(drawn), "rows with drawn questions")


def _of_row(
    kind: DrawnKind,
    row: Conversation,
    wanted: Mapping[QuestionType, int],
    provenance: dict[str, Any],
    texts: PromptFiles,
) -> list[Question]:
    questions: list[Question] = []
    draw = Random()
    for question_type, want in wanted.items():
        # seeded again rather than made anew, which seeds twice
        draw.seed(f"{provenance['seed']} questions {row.control_id} {question_type}")
        found: Iterator[QuestionAnswer] = kind.questions(question_type, row, texts, draw)
        questions += [
            Question(
                example_id=row.example_id,
                question=answered.question,
                answer=answered.answer,
                type=question_type,
                provenance=provenance,
            )
            for answered in itertools.islice(found, want)
        ]
    return questions
