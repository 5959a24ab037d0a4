"""Find where in the chat template's text each message's content stands.

Each message's content is wrapped in a pair of private-use characters, the conversation is rendered
to text, and the marks are taken out again: what stood between them is that content. The text
without marks must equal the plain rendering, so nothing depends on how a template is written. Where
it does not, the template strips contents, and which it strips is found message by message.

The segment of a message that calls tools includes its calls, with all that the template writes
around them. Their position follows from the text before and after the same message, rendered once
with marked content and without calls.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from activation_store.tokens.config import TemplateConfig
from activation_store.tokens.template import render, settings_of
from core.errors import DataError
from core.records.tool_use import arguments_as_text

_PRIVATE_USE = range(0xE000, 0xF900)
_BETWEEN = "\n\n"
"""What stands between a system text and the user's message that it is joined to."""

Strip = Callable[[str], str]
_KEEP: Strip = str
_STRIPS: tuple[tuple[Strip, Strip], ...] = (
    (_KEEP, _KEEP),
    (str.lstrip, str.rstrip),
    (_KEEP, str.rstrip),
    (str.lstrip, _KEEP),
    *(
        (left, right)
        for left in (_KEEP, lambda text: text.lstrip("\n"))
        for right in (_KEEP, lambda text: text.rstrip("\n"))
    ),
)
"""Ways in which templates strip a content: at its beginning, and at its end."""

Rendered = Callable[[Sequence[dict[str, Any]]], str]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One message as the template reads it.

    Attributes:
        message: its fields but the content.
        pieces: its content, in pieces that are located apart.
        as_part: whether the content is given as a list of one part of text.
    """

    message: dict[str, Any]
    pieces: tuple[str, ...]
    as_part: bool = False

    @property
    def calls_tools(self) -> bool:
        return "tool_calls" in self.message

    def written(
        self, marks: Sequence[tuple[str, str]] = (), strip: tuple[Strip, Strip] = _STRIPS[0]
    ) -> dict[str, Any]:
        """Return the message with its content, stripped, each piece between its two marks."""
        first, *rest = self.pieces
        pieces = [strip[0](first), *rest]
        pieces[-1] = strip[1](pieces[-1])
        if marks:
            pieces = [a + piece + b for piece, (a, b) in zip(pieces, marks, strict=True)]
        content = _BETWEEN.join(pieces)
        part = [{"type": "text", "text": content}]
        return self.message | {"content": part if self.as_part else content}


def locate(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    *,
    generation: bool,
    tools: list[Any] | None = None,
) -> tuple[str, list[tuple[int, int]]]:
    """Return the chat template's text for `messages`, and where in it each content stands.

    What a template refuses is tried once more in the other ways in which templates want it: calls
    with their arguments as JSON text, an empty list of tools, contents as lists of parts, and,
    where the model's settings say so, a system text as part of the first user's message.

    Args:
        tokenizer: the target's.
        messages: as the template reads them; where one has `tool_calls`, these belong to its
            content.
        generation: whether a generation prompt follows.
        tools: definitions of the tools on offer.

    Raises:
        DataError: the template refuses, cuts or changes a message, or leaves out calls or tools.
    """
    refused: DataError | None = None
    for turns, offered in _ways(messages, tools, settings_of(tokenizer)):
        try:
            return _locate(tokenizer, turns, generation=generation, tools=offered)
        except DataError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _ways(
    messages: list[dict[str, Any]], tools: list[Any] | None, settings: TemplateConfig
) -> Iterator[tuple[list[_Turn], list[Any] | None]]:
    turns = [
        _Turn({k: v for k, v in m.items() if k != "content"}, (m["content"],)) for m in messages
    ]
    yield turns, tools
    calls = any(turn.calls_tools for turn in turns)
    as_text = [_Turn(arguments_as_text(turn.message), turn.pieces) for turn in turns]
    if calls:
        yield as_text, tools
    if tools is None:
        yield turns, []
        if calls:
            yield as_text, []
    if not calls:
        yield _as_parts(turns), tools
    roles = [message["role"] for message in messages[:2]]
    if settings.system_role == "join" and roles == ["system", "user"]:
        system, user, *rest = turns
        turns = [_Turn(user.message, (*system.pieces, *user.pieces)), *rest]
        yield turns, tools
        if not calls:
            yield _as_parts(turns), tools


def _as_parts(turns: Sequence[_Turn]) -> list[_Turn]:
    return [replace(turn, as_part=True) for turn in turns]


def _locate(
    tokenizer: Any, turns: list[_Turn], *, generation: bool, tools: list[Any] | None
) -> tuple[str, list[tuple[int, int]]]:
    def rendered(changed: Sequence[dict[str, Any]]) -> str:
        return render(tokenizer, changed, generation=generation, tools=tools)

    messages = [turn.written() for turn in turns]
    text = rendered(messages)
    if turns[0].as_part and re.search(r"['\"]type['\"]: ['\"]text['\"]", text):
        raise _changed(turns)  # it has written the list itself
    if tools and render(tokenizer, messages, generation=generation) == text:
        raise DataError("the chat template leaves out the tools that are offered.")
    free = (chr(code) for code in _PRIVATE_USE if chr(code) not in text)
    marks = [[(next(free), next(free)) for _ in turn.pieces] for turn in turns]
    # None: written without marks, and found in another way
    strips = [None if turn.calls_tools else _STRIPS[0] for turn in turns]
    found, used = _marked(rendered, turns, marks, strips)
    if not _is_same(found, used, text):
        strips = [_find_strip(rendered, turns, i, marks[i], text) for i in range(len(turns))]
        found, used = _marked(rendered, turns, marks, strips)
        if not _is_same(found, used, text):
            raise _changed(turns)
    spans: list[tuple[int, int]] = []
    for i, (turn, own) in enumerate(zip(turns, marks, strict=True)):
        if turn.calls_tools:
            spans.append(_locate_calls(rendered, messages, i, text, own[0]))
        elif strips[i] is None:
            start = text.index(turn.pieces[0].strip())
            spans.append((start, start + len(turn.pieces[0].strip())))
        else:
            spans += [(_place(found, a, used), _place(found, b, used)) for a, b in own]
    if None in strips and any(b[0] < a[1] for a, b in itertools.pairwise(spans)):
        raise _changed(turns)
    return text, spans


def _marked(
    rendered: Rendered,
    turns: Sequence[_Turn],
    marks: Sequence[Sequence[tuple[str, str]]],
    strips: Sequence[tuple[Strip, Strip] | None],
) -> tuple[str, list[tuple[str, str]]]:
    """Render with marks around the contents that have a way to strip; return the marks too."""
    used: list[tuple[str, str]] = []
    messages = []
    for turn, own, strip in zip(turns, marks, strips, strict=True):
        messages.append(turn.written() if strip is None else turn.written(own, strip))
        used += [] if strip is None else own
    return rendered(messages), used


def _find_strip(
    rendered: Rendered,
    turns: Sequence[_Turn],
    index: int,
    marks: Sequence[tuple[str, str]],
    text: str,
) -> tuple[Strip, Strip] | None:
    """Find how the template strips one message: so stripped and marked alone, the text is the same.

    Returns:
        None where the message cannot be marked: it calls tools, or the template takes it apart and
        writes it again as it is (a thought and what follows it).

    Raises:
        DataError: in no way that is known.
    """
    turn = turns[index]
    if turn.calls_tools:
        return None
    messages = [other.written() for other in turns]
    for strip in _STRIPS:
        marked = [*messages[:index], turn.written(marks, strip), *messages[index + 1 :]]
        if _is_same(rendered(marked), marks, text):
            return strip
    verbatim = turn.pieces[0].strip()
    if len(turn.pieces) == 1 and verbatim and text.count(verbatim) == 1:
        return None
    raise _changed(turns)


def _is_same(found: str, marks: Sequence[tuple[str, str]], text: str) -> bool:
    """Return whether each mark stands once in `found`, which is `text` without them."""
    once = all(found.count(mark) == 1 for pair in marks for mark in pair)
    return once and _without(found, marks) == text


def _changed(turns: Sequence[_Turn]) -> DataError:
    return DataError(
        "the chat template cuts, drops or changes a message "
        f"(roles {[turn.message['role'] for turn in turns]}); its tokens cannot be told apart."
    )


def _locate_calls(
    rendered: Rendered,
    messages: list[dict[str, Any]],
    index: int,
    text: str,
    marks: tuple[str, str],
) -> tuple[int, int]:
    """Find where in `text` the message stands that calls tools: its content, and its calls.

    Raises:
        DataError: the template leaves out a call, its arguments, or changes what is around it.
    """
    _check_calls(rendered, messages, index, text)
    message = messages[index]
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
        f"message {index + 1} ({message['role']}): the chat template changes the text "
        "around a tool call, so its tokens cannot be located."
    )


def _check_calls(rendered: Rendered, messages: list[dict[str, Any]], index: int, text: str) -> None:
    """Check that the template writes a message's content, calls and their arguments.

    Raises:
        DataError: it leaves one out.
    """
    message = messages[index]
    where = f"message {index + 1} ({message['role']}): the chat template leaves out the"

    def changed(other: dict[str, Any]) -> str:
        return rendered([*messages[:index], other, *messages[index + 1 :]])

    if message["content"].strip() and changed(message | {"content": ""}) == text:
        raise DataError(f"{where} content beside a call of a tool.")
    for place, call in enumerate(message["tool_calls"]):
        function = call["function"]
        for part, other in (("call", "name"), ("arguments of its call", "arguments")):
            if not function[other]:
                continue
            emptied = call | {"function": function | {other: type(function[other])()}}
            calls = [*message["tool_calls"][:place], emptied, *message["tool_calls"][place + 1 :]]
            if changed(message | {"tool_calls": calls}) == text:
                raise DataError(f"{where} {part} of the tool {function['name']!r}.")


def _without(text: str, marks: Sequence[tuple[str, str]]) -> str:
    return text.translate({ord(mark): None for pair in marks for mark in pair})


def _place(text: str, mark: str, marks: Sequence[tuple[str, str]]) -> int:
    return len(_without(text[: text.index(mark)], marks))
