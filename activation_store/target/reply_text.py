"""A target's reply as text: what its token ids say, and whether the template would write it so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from activation_store.tokens.content_spans import locate
from activation_store.tokens.template import render
from activation_store.tokens.tokens import Encoded, end_of_turn, ends_of_reply, tokenize_with_text
from core.errors import DataError
from core.records.tables import Conversation, Message
from core.records.tool_use import for_template, offered_tools
from core.text.thoughts import ends_within_thought, find_thought, is_thought_alone

_OTHERWISE = "the chat template would write this reply otherwise than the target saw it"


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

    @property
    def opening(self) -> str:
        """The end of `text`, after the last message, in which a template may open a thought."""
        said = self.row.messages[-1].content.strip()
        return self.text.rpartition(said)[2] if said else self.text

    @property
    def opened_thought(self) -> str:
        """The end of `text` from where the template opens a thought; empty where it opens none."""
        opening = self.opening
        return opening[find_thought(opening)[0] :] if ends_within_thought(opening) else ""


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
        finished = bool(ids) and ids[-1] in self.ends
        written = self._said(prompt, ids[:-1] if finished else ids)
        text, refusal = self._content(prompt, written)
        reason, detail = "", ""
        thinking = prompt.opened_thought + written
        if is_thought_alone(thinking) or (ends_within_thought(thinking) and not finished):
            reason = "thought"
            detail = (
                "ended without an answer to its thought; turn thinking off in dump.template_args"
                if finished
                else f"cut within its thought at {len(ids)} tokens; raise complete.max_tokens, or "
                "turn thinking off in dump.template_args"
            )
        elif not text.strip():
            reason = "empty"
        elif refusal:
            beside_thought = self._beside_thought(prompt, written)
            text = beside_thought or text
            reason, detail = ("", "") if beside_thought else ("rendering", refusal)
        return TargetReply(ids=ids, text=text, finished=finished, reason=reason, detail=detail)

    def _said(self, prompt: StimulusPrompt, ids: list[int]) -> str:
        """Return the text of token ids that follow a prompt."""
        return self._decode([*prompt.ids, *ids])[len(self._decode(prompt.ids)) :]

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _content(self, prompt: StimulusPrompt, written: str) -> tuple[str, str]:
        """Return what the target saw where the template writes a reply.

        Beside it, why the template would write the reply otherwise; empty where it would not.
        """
        seen = prompt.text + written
        try:
            before, _ = self._rendered(prompt, "x")
            if self._is_header_alike(prompt, before):
                content = self._rendered(prompt, written)[1] if written.strip() else written
                return written, "" if content == written else _OTHERWISE
            if not seen.startswith(before):
                return written, _OTHERWISE
            text = seen[len(before) :]
            if not text.strip():
                return text, ""
            reply = Message(role="assistant", content=text, segment="completion")
            _, encoded = tokenize_with_text(self.tokenizer, (*prompt.row.messages, reply))
        except DataError as error:
            return written, str(error)
        return text, "" if encoded.text.startswith(seen) else _OTHERWISE

    def _is_header_alike(self, prompt: StimulusPrompt, before: str) -> bool:
        """Return whether the header that asks for a reply ends like another before replies.

        One that says how to reply (Granite's controls) stands only where a reply is asked for.

        Args:
            prompt: the conversation up to the stimulus.
            before: what the template writes before a reply to it.
        """
        if prompt.text == before:
            return False
        said = prompt.row.messages
        history = render(
            self.tokenizer, [*map(for_template, said)], generation=False, tools=offered_tools(said)
        )
        if not (prompt.text.startswith(history) and before.startswith(history)):
            return False
        end = self._end_of_header(prompt.text[len(history) :])
        return end is not None and end == self._end_of_header(before[len(history) :])

    def _end_of_header(self, header: str) -> str | None:
        """Return the end of a header, from its last control token; None where it has none."""
        encoded = Encoded.of(self.tokenizer, header)
        return header[encoded.starts[encoded.special][-1] :] if encoded.special.any() else None

    def _beside_thought(self, prompt: StimulusPrompt, written: str) -> str:
        """Return a reply whose thought alone the template would write otherwise, or not at all.

        Such a row is dumped by its token ids, the thought among them. Its text is without a thought
        that has control tokens.

        Returns:
            the text; empty where the template changes more than the thought.
        """
        seen = prompt.text + written
        start, answer = find_thought(prompt.opening + written)
        if start is None or not answer.strip():
            return ""
        start += len(prompt.text) - len(prompt.opening)
        history = seen[:start].rstrip()
        try:
            before, _ = self._rendered(prompt, "x")
            # what the template writes between the conversation and a reply, its own thought apart
            header = find_thought(before[len(history) :])[1].strip()
            answer = answer.strip().removeprefix(header).lstrip()
            before, content = self._rendered(prompt, answer)
        except DataError:
            return ""
        same = before.startswith(history) and content.strip() == answer != ""
        if not same or self._has_control_tokens(answer):
            return ""
        return answer if self._has_control_tokens(seen[start:]) else seen[start:]

    def _has_control_tokens(self, text: str) -> bool:
        return bool(Encoded.of(self.tokenizer, text).special.any())

    def _rendered(self, prompt: StimulusPrompt, content: str) -> tuple[str, str]:
        """Render the conversation with a reply; return the text before it, and the reply's own.

        Raises:
            DataError: the template refuses or changes the reply.
        """
        said = prompt.row.messages
        messages = [*map(for_template, said), {"role": "assistant", "content": content}]
        text, spans = locate(self.tokenizer, messages, generation=False, tools=offered_tools(said))
        start, stop = spans[-1]
        return text[:start], text[start:stop]
