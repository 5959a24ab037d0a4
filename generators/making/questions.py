"""An LLM writes questions and answers about each control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from core.documents.canonical import digest
from core.errors import ConfigError
from core.progress import Progress
from core.records.tables import Conversation, Dropped, Question, QuestionType, Split
from generators.kinds import asking_kinds
from generators.kinds.base import Kind, QuestionRequest, WrittenKind
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply_json import Rejection
from generators.llm.prompt_files import PromptFiles
from generators.making.config import QuestionsConfig
from generators.making.waves import PlannedRequest, Quota, fill_quotas, request_limit
from generators.rules.duplicates import Duplicates
from generators.rules.text import find_unsupported

_JUDGED: tuple[Split, ...] = ("validation", "test", "test_ood")
"""Splits whose controls can be asked the same questions (`generate.questions.shared`)."""


@dataclass(frozen=True, kw_only=True)
class ControlQuestion:
    """A question about a control, from which a question about each of its rows is made."""

    question: str
    answer: str
    type: QuestionType
    prompt: str
    request: str

    def for_row(self, example_id: str, generator: str) -> Question:
        """Build the question as a row about one example."""
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
    texts: PromptFiles,
    client: LLMClient,
    progress: Progress,
) -> tuple[dict[str, list[ControlQuestion]], list[Dropped]]:
    """Have the LLM write questions for each control, by control_id; return dropped replies too.

    Rows of kinds that code draws are left to `generators.making.drawn`. Where good replies for one
    type run out, another type of the same control stands in.

    Raises:
        ConfigError: a kind has none of the types asked for.
        EndpointError: the endpoint cannot be used.
    """
    kinds = asking_kinds(rows)
    first_rows: dict[str, Conversation] = {}
    for row in rows:
        if row.kind in kinds:
            first_rows.setdefault(row.control_id, row)
    examples = [
        str(value)
        for kind in {kind.name: kind for kind in kinds.values()}.values()
        for name in kind.question_prompts
        for reply in texts.prompt(name).few_shot
        for value in reply.values()
    ]
    seen = Duplicates(config.filters.near_duplicate, examples)
    found = {
        control: [
            _TypeQuota(row, kinds[row.kind], question_type, want, seen, config, texts)
            for question_type, want in questions_by_type(kinds[row.kind], config).items()
        ]
        for control, row in first_rows.items()
    }
    quotas = [share.quota for own in found.values() for share in own]
    dropped = await fill_quotas(quotas, client, config, progress, "questions")
    topped = [share.quota for own in found.values() for share in _topped_up(own, config)]
    dropped += await fill_quotas(topped, client, config, progress, "questions, other types")
    return {
        control: [question for share in own for question in share.kept]
        for control, own in found.items()
    }, dropped


def _topped_up(own: list[_TypeQuota], config: QuestionsConfig) -> list[_TypeQuota]:
    """Raise the quota of a type with good replies by what the control's other types lack."""
    missing = sum(share.want - len(share.kept) for share in own)
    willing = [share for share in own if len(share.kept) == share.want]
    if not missing or not willing:
        return []
    willing[0].want_more(missing, config.over_ask)
    return willing[:1]


def questions_by_type(kind: Kind, config: QuestionsConfig) -> dict[QuestionType, int]:
    """Divide a control's questions evenly among the types; the first types get the remainder.

    Raises:
        ConfigError: the kind has none of the types asked for.
    """
    asked_for = kind.types if config.types is None else config.types
    types = [name for name in asked_for if name in kind.types]
    if not types:
        raise ConfigError(
            f"generate.questions.types: the kind {kind.name!r} has {', '.join(kind.types)}, and "
            f"none is asked for ({', '.join(asked_for)}). Add one, or leave the kind out."
        )
    each, odd = divmod(config.per_control, len(types))
    return {name: each + (place < odd) for place, name in enumerate(types) if each or place < odd}


class _TypeQuota:
    """The questions of one type about one control: how many, and what is kept so far."""

    def __init__(
        self,
        row: Conversation,
        kind: WrittenKind,
        question_type: QuestionType,
        want: int,
        seen: Duplicates,
        config: QuestionsConfig,
        texts: PromptFiles,
    ) -> None:
        self.want = want
        self.kept: list[ControlQuestion] = []
        self._row = row
        self._kind = kind
        self._type = question_type
        self._seen = seen
        self._config = config
        self._texts = texts
        self.quota = Quota(want=want, asks=self._asks(), most=request_limit(want, config.over_ask))

    def want_more(self, rows: int, over_ask: float) -> None:
        """Raise the quota; its requests go on where they stopped."""
        self.want += rows
        self.quota.want, self.quota.kept = self.want, len(self.kept)
        self.quota.most += request_limit(rows, over_ask)

    def _asks(self) -> Iterator[PlannedRequest]:
        row, control = self._row, self._kind.told_of(self._row)
        alike = self._config.shared and row.split in _JUDGED
        asked = [row.kind, row.split] if alike else control
        draw = Random(digest([self._config.seed, "questions", asked, self._type]))
        asks = self._kind.questions(self._type, control, self._texts, draw)
        for number, ask in enumerate(asks):
            prompt = self._texts.prompt(ask.prompt)

            def accept(
                reply: dict[str, Any],
                key: str,
                ask: QuestionRequest = ask,
                prompt_digest: str = prompt.digest,
            ) -> Sequence[Rejection]:
                return self._accept(ask, reply, key, prompt_digest)

            yield PlannedRequest(
                where=f"{self._type} of {row.label}",
                prompt=prompt,
                values=ask.values,
                sample=number,
                accept=accept,
                rows=ask.rows,
            )

    def _accept(
        self, ask: QuestionRequest, reply: dict[str, Any], key: str, prompt_digest: str
    ) -> list[Rejection]:
        own, source = self._row.control_id, ask.about or self._kind.told_of(self._row)
        faults: list[Rejection] = []
        for answered in ask.read(reply):
            if len(self.kept) == self.want:
                break  # the last request made more than was missing
            written = answered.question if ask.about else answered.answer
            fault = find_unsupported(written, source) if self._config.filters.specific else None
            # two answers about one control may well be alike, two questions about it may not
            fault = fault or self._seen.find(written, None if ask.about else own)
            if fault:
                faults.append(fault)
                continue
            self._seen.add(written, own)
            self.kept.append(
                ControlQuestion(
                    question=answered.question,
                    answer=answered.answer,
                    type=self._type,
                    prompt=prompt_digest,
                    request=key,
                )
            )
        return faults
