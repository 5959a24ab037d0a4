"""A target's reply as text: what its token ids say, and whether the template would write it so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from activation_store.tokens.content_spans import locate, renders_alike
from activation_store.tokens.tokens import Encoded, end_of_turn, ends_of_reply, tokenize_with_text
from core.errors import DataError
from core.records.tables import Conversation, Message
from core.records.tool_use import for_template, offered_tools
from core.text.thoughts import ends_within_thought, is_thought_alone

_TAIL = 64
"""Characters of a prompt's end in which a template may open a thought."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReply:
    """What the target wrote to one stimulus, or why that is not kept.

    Attributes:
        ids: token ids that it generated, the end of turn among them.
        text: what they say, as the content of a message.
        finished: whether it ended its turn.
        reason: name of the rule by which it is dropped; empty where it is kept.
        detail: why, in words.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    finished: bool = False
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StimulusPrompt:
    """A conversation up to the stimulus, as the target reads it.

    Attributes:
        row: the conversation.
        ids: its token ids.
        text: its text.
    """

    row: Conversation
    ids: list[int]
    text: str


class ReplyReader:
    """Reads replies with the target's tokenizer.

    Attributes:
        tokenizer: the target's.
        ends: token ids that end a reply.
        end: the one that the template writes, else the end of text; None where there is neither.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ends = ends_of_reply(tokenizer)
        turn = end_of_turn(tokenizer)
        self.end: int | None = tokenizer.eos_token_id if turn is None else turn

    def prompts(self, rows: Sequence[Conversation]) -> list[StimulusPrompt | TargetReply]:
        """Return the prompt of each row; for one that the template cannot write, why."""
        found: list[StimulusPrompt | TargetReply] = []
        for row in rows:
            try:
                tokens, encoded = tokenize_with_text(self.tokenizer, row.messages)
            except DataError as error:
                found.append(TargetReply(reason="template", detail=str(error)))
            else:
                found.append(StimulusPrompt(row=row, ids=tokens.ids.tolist(), text=encoded.text))
        return found

    def replies(
        self,
        prompts: Sequence[StimulusPrompt | TargetReply],
        written: Iterable[list[int] | TargetReply],
    ) -> list[TargetReply]:
        """Return the replies to `prompts`, in their order.

        Args:
            prompts: as `prompts` returned them.
            written: for each that is a prompt, the token ids that followed it, or why none did.
        """
        following = iter(written)
        found: list[TargetReply] = []
        for prompt in prompts:
            if isinstance(prompt, TargetReply):
                found.append(prompt)
                continue
            own = next(following)
            found.append(own if isinstance(own, TargetReply) else self._reply(prompt, own))
        return found

    def ids_of(self, prompt: StimulusPrompt, text: str) -> list[int] | None:
        """Tokenize a reply of which the text alone is known.

        Returns:
            the token ids; None where they would not say `text`, or where it changes the tokens
            before it.
        """
        ids = Encoded.of(self.tokenizer, prompt.text + text).ids.tolist()
        prefix = len(prompt.ids)
        if ids[:prefix] != prompt.ids or self._said(prompt, ids[prefix:]) != text:
            return None
        return list(ids[prefix:])

    def _reply(self, prompt: StimulusPrompt, ids: list[int]) -> TargetReply:
        """Return a reply with its text, if the rendered conversation equals what the target saw.

        Args:
            prompt: the conversation up to the stimulus.
            ids: what the target generated.
        """
        row, prompt_text = prompt.row, prompt.text
        finished = bool(ids) and ids[-1] in self.ends
        written = self._said(prompt, ids[:-1] if finished else ids)
        seen = prompt_text + written
        content, rendered = self._content(row, prompt_text, written)
        text = content or written
        reason, detail = "", ""
        in_thought = ends_within_thought(seen[max(0, len(prompt_text) - _TAIL) :])
        if is_thought_alone(text) or (in_thought and not finished):
            reason = "thought"
            detail = (
                "ended without an answer to its thought; turn thinking off in dump.template_args"
                if finished
                else f"cut within its thought at {len(ids)} tokens; raise complete.max_tokens, or "
                "turn thinking off in dump.template_args"
            )
        elif not text.strip():
            reason = "empty"
        elif not self._leaves_thought_out(row, content) and (
            refusal := self._differs(row, text, rendered)
        ):
            reason, detail = "rendering", refusal
        return TargetReply(ids=ids, text=text, finished=finished, reason=reason, detail=detail)

    def _said(self, prompt: StimulusPrompt, ids: list[int]) -> str:
        """Return the text of token ids that follow a prompt."""
        return self._decode([*prompt.ids, *ids])[len(self._decode(prompt.ids)) :]

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _content(self, row: Conversation, prompt_text: str, written: str) -> tuple[str, str]:
        """Return the part of `written` where the template writes a reply; empty if there is none.

        Beside it, the conversation with it. A thought in a message of its own (gpt-oss), which the
        template leaves out before the answer, is left out of both.
        """
        seen = prompt_text + written
        messages = [*map(for_template, row.messages), {"role": "assistant", "content": "x"}]
        try:
            text, spans = locate(
                self.tokenizer, messages, generation=False, tools=offered_tools(row.messages)
            )
        except DataError:
            return "", seen
        before = text[: spans[-1][0]]
        if seen.startswith(before):
            return seen[len(before) :], seen
        thought, header, answer = written.rpartition(before.removeprefix(prompt_text) or "\0")
        if header and answer.strip() and ends_within_thought(thought):
            return answer, before + answer
        return "", seen

    def _differs(self, row: Conversation, text: str, seen: str) -> str:
        """Return why the template would write the reply otherwise than the target saw it."""
        reply = Message(role="assistant", content=text, segment="completion")
        try:
            _, encoded = tokenize_with_text(self.tokenizer, (*row.messages, reply))
        except DataError as error:
            return str(error)
        if encoded.text.startswith(seen):
            return ""
        return "the chat template would write this reply otherwise than the target saw it"

    def _leaves_thought_out(self, row: Conversation, text: str) -> bool:
        """Return whether all that the template changes in a reply is to leave its thought out.

        DeepSeek R1's does so. Such a row is dumped by its token ids, the thought among them.
        """
        _, thought_end, answer = text.rpartition("</think>")
        before = [for_template(message) for message in row.messages]
        whole, without = (
            [*before, {"role": "assistant", "content": content}] for content in (text, answer)
        )
        return bool(thought_end and answer.strip()) and renders_alike(
            self.tokenizer, whole, without, tools=offered_tools(row.messages)
        )
