"""The last stage: questions and answers about each control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from generators.asking import Asker
from generators.canonical import digest
from generators.controls import text_rules
from generators.errors import ConfigError
from generators.generate_config import QuestionsConfig, QuestionType
from generators.kinds import kind_named
from generators.kinds.base import Kind, QuestionAsk
from generators.progress import Progress
from generators.quality import Duplicates, Fault, unsupported
from generators.quotas import Ask, Quota, bound, fill
from generators.schema import Conversation, Dropped, Question
from generators.texts import Texts


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about a control, before it goes to the control's rows."""

    question: str
    answer: str
    type: QuestionType
    prompt: str
    request: str

    def for_row(self, example_id: str, generator: str) -> Question:
        """The question as a row about one example."""
        return Question(
            example_id=example_id,
            question=self.question,
            answer=self.answer,
            type=self.type,
            provenance={
                "generator": generator,
                "prompt": self.prompt,
                "requests": [self.request],
            },
        )


async def ask_questions(
    rows: Sequence[Conversation],
    config: QuestionsConfig,
    texts: Texts,
    asker: Asker,
    progress: Progress,
) -> tuple[dict[str, list[Asked]], list[Dropped]]:
    """control_id → its questions, types in the config's order; and what was dropped.

    Raises:
        ConfigError: a kind has none of the types asked for.
        EndpointError: the endpoint cannot be used.
    """
    first_rows = {row.control_id: row for row in reversed(rows)}
    controls = [first_rows[name] for name in dict.fromkeys(row.control_id for row in rows)]
    seen = Duplicates(config.filters.near_duplicate)
    known: set[str] = set()
    found: dict[str, dict[QuestionType, list[Asked]]] = {}
    quotas: list[Quota] = []
    for row in controls:
        kind = kind_named(row.kind)
        if kind.name not in known:
            known.add(kind.name)
            for name in kind.question_prompts:
                for reply in texts.prompt(name).few_shot:
                    for value in reply.values():
                        seen.add(str(value))
        found[row.control_id] = {}
        for question_type, want in shares(kind, config).items():
            kept: list[Asked] = []
            found[row.control_id][question_type] = kept
            quotas.append(
                Quota(
                    want=want,
                    asks=_asks(row, kind, question_type, want, kept, seen, config, texts),
                    most=bound(want, config.over_ask),
                )
            )
    dropped = await fill(
        quotas,
        asker,
        sampling=config.sampling,
        rules=text_rules(config.filters),
        progress=progress,
        note="questions",
    )
    return {
        control: [asked for kept in by_type.values() for asked in kept]
        for control, by_type in found.items()
    }, dropped


def shares(kind: Kind, config: QuestionsConfig) -> dict[QuestionType, int]:
    """How many questions of each type a control of `kind` gets; the first types get the odd ones.

    Raises:
        ConfigError: the kind has none of the types asked for.
    """
    types = [name for name in config.types if name in kind.types]
    if not types:
        raise ConfigError(
            f"generate.questions.types: the kind {kind.name!r} has {', '.join(kind.types)}, and "
            f"none is asked for ({', '.join(config.types)}). Add one, or leave the kind out."
        )
    each, odd = divmod(config.per_control, len(types))
    return {name: each + (place < odd) for place, name in enumerate(types) if each or place < odd}


def _asks(
    row: Conversation,
    kind: Kind,
    question_type: QuestionType,
    want: int,
    kept: list[Asked],
    seen: Duplicates,
    config: QuestionsConfig,
    texts: Texts,
) -> Iterator[Ask]:
    control, filters = row.control, config.filters
    draw = Random(digest([config.seed, "questions", control, question_type]))
    for number, ask in enumerate(kind.questions(question_type, control, texts, draw)):
        prompt = texts.prompt(ask.prompt)

        def accept(
            reply: dict[str, Any], key: str, ask: QuestionAsk = ask, digest_of: str = prompt.digest
        ) -> Sequence[Fault]:
            faults: list[Fault] = []
            for answered in ask.read(reply):
                if len(kept) == want:
                    break  # the last request made more than was missing
                written = answered.question if ask.about else answered.answer
                fault = unsupported(written, ask.about or control) if filters.specific else None
                # two answers about one control may well be alike, two questions about it may not
                fault = fault or seen.find(written, None if ask.about else row.control_id)
                if fault:
                    faults.append(fault)
                    continue
                seen.add(written, row.control_id)
                kept.append(
                    Asked(
                        question=answered.question,
                        answer=answered.answer,
                        type=question_type,
                        prompt=digest_of,
                        request=key,
                    )
                )
            return faults

        yield Ask(
            where=f"{question_type} of {row.label}",
            prompt=prompt,
            values=ask.values,
            sample=number,
            accept=accept,
            rows=ask.rows,
        )
