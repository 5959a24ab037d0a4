"""An LLM writes a control for steering from one sentence that says what a target is to become."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core.errors import DataError
from core.progress import silent
from core.records.steering_control import SteeringControl
from core.records.tables import Dropped
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply_json import Rejection
from generators.llm.prompt_files import PromptTemplate
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig
from generators.making.waves import PlannedRequest, Quota, fill_quotas
from generators.rules.refusals import find_refusal
from generators.rules.text import content_words
from generators.rules.words import words

PROMPT = "steering_control"
_TRIES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenControl:
    """A control that an LLM wrote.

    Attributes:
        control: the control.
        rejected: (rule, detail) of each reply that was refused before.
        usage: what was asked and spent.
    """

    control: SteeringControl
    rejected: tuple[tuple[str, str], ...]
    usage: Usage


def write_steering_control(
    sentence: str,
    *,
    name: str,
    session: LLMSession,
) -> WrittenControl:
    """Have an LLM write a control; a reply that breaks a rule is asked for again, as another one.

    Args:
        sentence: what the target is to become.
        name: of the control.
        session: the LLM with its log and prompts.

    Raises:
        DataError: the sentence is empty, or no reply keeps to the rules; the last one's fault is
            named.
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        ConfigError: the prompt's file is wrong.
    """
    if not sentence.strip():
        raise DataError("control: the sentence is empty; expected what the target is to become.")
    prompt = session.texts.prompt(PROMPT)
    endpoint = session.require_endpoint("generate.endpoint", ["controls for steering"])
    kept: list[SteeringControl] = []

    def accept(reply: dict[str, Any], key: str) -> Sequence[Rejection]:
        read = _read(reply, name, sentence)
        if isinstance(read, Rejection):
            return [read]
        kept.append(read)
        return []

    async def work(client: LLMClient) -> list[Dropped]:
        quota = Quota(want=1, asks=_asks(prompt, sentence, accept), most=_TRIES)
        return await fill_quotas([quota], client, ConversationsConfig(), silent, "controls")

    dropped, client = session.run(endpoint, work)
    rejected = [(own.reason, own.detail) for own in dropped]
    if not kept:
        reason, detail = rejected[-1]
        raise DataError(
            f"control {sentence!r}: {len(rejected)} replies of {endpoint.model} break a "
            f"rule, the last {reason} ({detail}). Rephrase the sentence, or use a larger "
            "model."
        )
    return WrittenControl(control=kept[0], rejected=tuple(rejected), usage=client.usage)


def _asks(
    prompt: PromptTemplate,
    sentence: str,
    accept: Callable[[dict[str, Any], str], Sequence[Rejection]],
) -> Iterator[PlannedRequest]:
    for sample in itertools.count():
        yield PlannedRequest(
            where=f"steering control: {sentence}",
            prompt=prompt,
            values={"sentence": sentence},
            sample=sample,
            accept=accept,
        )


def _read(reply: dict[str, Any], name: str, sentence: str) -> SteeringControl | Rejection:
    """Read a reply as a control, or name the rule that it breaks."""
    content = {key: value for key, value in reply.items() if key != "words"}
    found = sorted({word for text in reply["words"] for word in words(text)})
    try:
        control = SteeringControl.model_validate(
            {"control": name, **content, "check": {"words": found} if found else None}
        )
    except ValidationError as error:
        return Rejection("malformed", str(error.errors()[0]["msg"]))
    return _find_fault(control, sentence) or control


def _find_fault(control: SteeringControl, sentence: str) -> Rejection | None:
    asked = [_plain(own.question) for own in control.questions]
    if len(set(asked)) < len(asked):
        return Rejection("duplicate", "asks one question twice")
    if not set(content_words(sentence)) & set(content_words(control.description)):
        return Rejection("unsupported", "the description has no word of the sentence")
    for own in control.questions:
        answers = [_plain(text) for text in (own.answer, *own.instead)]
        if len(set(answers)) < len(answers):
            return Rejection("duplicate", f"{own.question} has one answer twice")
        if set(content_words(own.answer)) <= set(content_words(own.question)):
            return Rejection("gives_answer_away", own.question)
        if fault := find_refusal(own.answer):
            return fault
    return None


def _plain(text: str) -> str:
    return " ".join(words(text))
