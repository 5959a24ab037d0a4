"""A conversation as tokens, with the segment of each token, for any chat template.

Each message's content is wrapped in a pair of private-use characters, the conversation is rendered
to text, and the marks are taken out again: what stood between them is that content. The text
without marks must equal the plain rendering, so nothing depends on how a template is written.

A message that calls tools has its calls in its segment as well, with all that the template writes
around them. Where they stand is found by what stands before and after the same message when it says
a marked content alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from core.errors import DataError
from core.tables import Message
from core.tool_use import for_template, message_text, offered_tools

SEGMENT_CODES = {"template": 0, "control": 1, "stimulus": 2, "completion": 3}
# some templates write today's date; a fixed one keeps a store's tokens the same on every day
_DATE = datetime(2025, 1, 1)
_CLOCK = "strftime_now"
_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A rendered conversation of T tokens.

    Attributes:
        ids: [T] int32 token ids.
        segments: [T] uint8, codes of `SEGMENT_CODES`.
        withheld: number of leading tokens that masking withholds: everything up to the header of
            the first message after the control and its acknowledgement (arXiv 2412.08686, app. B);
            0 where nothing comes after.
    """

    ids: np.ndarray
    segments: np.ndarray
    withheld: int


def render(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    *,
    generation: bool,
    tools: list[Any] | None = None,
) -> str:
    """The chat template's text for `messages`, with `tools` on offer.

    Raises:
        DataError: the template refuses them (Gemma: system role; Mistral: two users in a row).
    """
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            tokenize=False,
            add_generation_prompt=generation,
            date_string=_DATE.strftime("%d %b %Y"),
            chat_template=_stopped_clock(tokenizer.get_chat_template()),
        )
    except Exception as error:  # jinja raises TemplateError, templates raise whatever they like
        raise DataError(
            f"the chat template refuses roles {[m['role'] for m in messages]} ({error})."
        ) from error


def _stopped_clock(template: str) -> str:
    """The template, with a function for today's date of its own that tells a fixed one."""
    if _CLOCK not in template:
        return template
    fields = "".join(f" | replace('%{c}', '{_DATE:%{c}}')" for c in "aAbBdeHIjmMpSyY")
    # the line break ends the macro's line, and is not part of what the template writes
    return f"{{% macro {_CLOCK}(format) %}}{{{{ format{fields} }}}}{{% endmacro %}}\n{template}"


def tokenize(tokenizer: Any, messages: Sequence[Message]) -> Tokens:
    """Tokens of a target conversation, with a generation prompt except after a completion.

    Raises:
        DataError: the template refuses, cuts or changes a message, or a content holds one of the
            model's control tokens.
    """
    return tokenize_with_text(tokenizer, messages)[0]


def tokenize_with_text(tokenizer: Any, messages: Sequence[Message]) -> tuple[Tokens, Encoded]:
    """The same, and where each token stands in the conversation's text.

    Raises: as `tokenize`.
    """
    text, spans = locate(
        tokenizer,
        [for_template(message) for message in messages],
        generation=messages[-1].role != "assistant",
        tools=offered_tools(messages),
    )
    encoded = Encoded.of(tokenizer, text)
    segments = np.zeros(len(encoded.ids), np.uint8)
    for message, (start, stop) in zip(messages, spans, strict=True):
        # around a call the template writes control tokens of its own
        whole = None if message.tool_use is None else message_text(message)
        inside = encoded.inside(start, stop, f"a message of segment {message.segment}", whole)
        segments[inside] = SEGMENT_CODES[message.segment]
    withheld = _withheld(tokenizer, messages, encoded, spans)
    return Tokens(encoded.ids.astype(np.int32), segments, withheld), encoded


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as T tokens.

    Attributes:
        text: the text.
        ids: [T] int64 token ids.
        starts: [T] where each token begins in the text, in characters.
        stops: [T] where it ends.
        special: [T] whether it is a control token.
        names: the control tokens in the text, by id.
    """

    text: str
    ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    special: np.ndarray
    names: dict[int, str]

    @classmethod
    def of(cls, tokenizer: Any, text: str) -> Encoded:
        """Tokenise a rendered text, whose control tokens are in it already."""
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(encoded["input_ids"], np.int64)
        offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        # a header token of a template need not be among the tokenizer's own bos, eos and others
        added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        known = added | set(tokenizer.all_special_ids)
        special = np.isin(ids, sorted(known))
        names = {int(i): str(tokenizer.convert_ids_to_tokens(int(i))) for i in ids[special]}
        return cls(text, ids, offsets[:, 0], offsets[:, 1], special, names)

    def inside(
        self, start: int, stop: int, what: str, message_text: str | None = None
    ) -> np.ndarray:
        """[T] which tokens overlap the characters `start` to `stop`, control tokens left out.

        A control token can take white space of its neighbours with it (Phi-3), and overlap so.

        Args:
            start: first character.
            stop: the one after the last.
            what: whose characters they are, for the error.
            said: what of them is not the template's; None for all.

        Raises:
            DataError: the characters spell a control token.
        """
        overlap = (self.starts < stop) & (self.stops > start)
        own = self.text[start:stop] if message_text is None else message_text
        for token in self.ids[overlap & self.special]:
            if self.names[int(token)] in own:
                raise DataError(
                    f"{what} holds the control token {self.names[int(token)]}; escape or remove it."
                )
        return overlap & ~self.special


def locate(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    *,
    generation: bool,
    tools: list[Any] | None = None,
) -> tuple[str, list[tuple[int, int]]]:
    """The chat template's text for `messages`, and where in it each content stands.

    Args:
        tokenizer: the target's.
        messages: as the template reads them; where one has `tool_calls`, these belong to its
            content.
        generation: whether a generation prompt follows.
        tools: definitions of the tools on offer.

    Raises:
        DataError: the template refuses, cuts or changes a message, or leaves out calls or tools.
    """

    def rendered(changed: Sequence[dict[str, Any]]) -> str:
        return render(tokenizer, changed, generation=generation, tools=tools)

    text = rendered(messages)
    if tools is not None and render(tokenizer, messages, generation=generation) == text:
        raise DataError("the chat template leaves out the tools that are offered.")
    free = (chr(code) for code in _PRIVATE_USE if chr(code) not in text)
    marks = [(next(free), next(free)) for _ in messages]
    for strip in (False, True):  # some templates strip contents, and would strip outside the marks
        contents = [m["content"].strip() if strip else m["content"] for m in messages]
        marked = [
            m if "tool_calls" in m else m | {"content": a + content + b}
            for m, content, (a, b) in zip(messages, contents, marks, strict=True)
        ]
        used = [pair for m, pair in zip(messages, marks, strict=True) if "tool_calls" not in m]
        found = rendered(marked)
        if all(found.count(mark) == 1 for pair in used for mark in pair):
            if _without(found, used) != text:
                continue
            return text, [
                _calling(rendered, messages, i, text, pair)
                if "tool_calls" in messages[i]
                else (_place(found, pair[0], used), _place(found, pair[1], used))
                for i, pair in enumerate(marks)
            ]
    raise DataError(
        "the chat template cuts, drops or changes a message "
        f"(roles {[m['role'] for m in messages]}); its tokens cannot be told apart."
    )


def _calling(
    rendered: Callable[[list[dict[str, Any]]], str],
    messages: list[dict[str, Any]],
    index: int,
    text: str,
    marks: tuple[str, str],
) -> tuple[int, int]:
    """Where in `text` the message stands that calls tools: its content, and its calls.

    Raises:
        DataError: the template leaves out a call, its arguments, or changes what is around it.
    """
    message = messages[index]

    def changed(other: dict[str, Any]) -> str:
        return rendered([*messages[:index], other, *messages[index + 1 :]])

    if message["content"].strip() and changed(message | {"content": ""}) == text:
        raise DataError(
            f"message {index + 1} ({message['role']}): the chat template leaves out the content "
            "beside a call of a tool."
        )
    for place, call in enumerate(message["tool_calls"]):
        function = call["function"]
        for part, other in (("call", "name"), ("arguments of its call", "arguments")):
            if not function[other]:
                continue
            emptied = call | {"function": function | {other: type(function[other])()}}
            calls = [*message["tool_calls"][:place], emptied, *message["tool_calls"][place + 1 :]]
            if changed(message | {"tool_calls": calls}) == text:
                raise DataError(
                    f"message {index + 1} ({message['role']}): the chat template leaves out the "
                    f"{part} of the tool {function['name']!r}."
                )
    bare = {name: item for name, item in message.items() if name != "tool_calls"}
    alone = bare | {"content": marks[0] + message["content"].strip() + marks[1]}
    # some templates want calls before replies of tools: there the conversation ends with the call
    for ends in (len(messages), index + 1):
        try:
            whole = rendered(messages[:ends])
            found = rendered([*messages[:index], alone, *messages[index + 1 : ends]])
        except DataError:
            continue
        # white space beside a content may be the content's alone (Mistral)
        before = found.partition(marks[0])[0].rstrip()
        after = found.rpartition(marks[1])[2].lstrip()
        start, stop = len(before), len(whole) - len(after)
        if (
            start <= stop
            and whole.startswith(before)
            and whole.endswith(after)
            and text.startswith(whole[:stop])
        ):
            own = whole[start:stop]
            return stop - len(own.lstrip()), start + len(own.rstrip())
    raise DataError(
        f"message {index + 1} ({message['role']}): the chat template changes what is around a call "
        "of a tool; its tokens cannot be told apart."
    )


def _without(text: str, marks: list[tuple[str, str]]) -> str:
    return text.translate({ord(mark): None for pair in marks for mark in pair})


def _place(text: str, mark: str, marks: list[tuple[str, str]]) -> int:
    return len(_without(text[: text.index(mark)], marks))


def _withheld(
    tokenizer: Any,
    messages: Sequence[Message],
    encoded: Encoded,
    spans: list[tuple[int, int]],
) -> int:
    control = [i for i, m in enumerate(messages) if m.segment == "control"]
    if not control or control[-1] == len(messages) - 1:
        return 0
    stop, start = spans[control[-1]][1], spans[control[-1] + 1][0]
    # the control's turn ends with a special token, and the white space that belongs to it; in a
    # template without one, the next message's own content is where it ends
    between = np.flatnonzero((encoded.starts >= stop) & (encoded.stops <= start))
    ends = between[encoded.special[between]]
    if not len(ends):
        # a token with a character of the control in it is the control's
        return int(np.flatnonzero((encoded.stops > start) & (encoded.starts >= stop))[0])
    cut = int(ends[0]) + 1
    while (
        cut <= between[-1]
        and not encoded.special[cut]
        and not tokenizer.decode(encoded.ids[cut]).strip()
    ):
        cut += 1
    return cut
