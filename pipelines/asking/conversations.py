"""Conversations that a target runs on, from texts or from the messages of a chat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from core.documents.strict_json import load_json
from core.errors import ConfigError, DataError
from core.records.tables import PLAIN_TEXT, Message, Segment, View
from core.text.wording import shortened

ACKNOWLEDGEMENT = "Understood."
"""What the target is taken to have said to its control before a stimulus."""
ROLES = ("system", "user", "assistant", PLAIN_TEXT)
_SEGMENTS = tuple(segment for segment in get_args(Segment) if segment != "template")
_KEYS = ("role", "content", "segment")

ChatMessages = Sequence[Mapping[str, str]]
"""Messages as chat APIs take them: {"role", "content"}, with an optional "segment"."""


def conversation_from_texts(
    prompt: str, *, system: str | None = None, stimulus: str | None = None
) -> tuple[View, tuple[Message, ...]]:
    """Build a conversation from texts; return its view and messages (arXiv 2412.08686, section 3).

    Args:
        prompt: what a user says; alone it is the control.
        system: a system prompt, which is the control then.
        stimulus: what the user says after the target has acknowledged `prompt`.

    Raises:
        DataError: a text is empty.
        ConfigError: both `system` and `stimulus` are given.
    """
    for what, text in (("prompt", prompt), ("system", system), ("stimulus", stimulus)):
        if text is not None and not text.strip():
            raise DataError(f"ask: the {what} is empty; expected some text.")
    if system is not None and stimulus is not None:
        raise ConfigError(
            "ask: got a system prompt and a stimulus, expected one of them. With a system "
            "prompt, the prompt itself is the stimulus."
        )
    if system is not None:
        return "system", (
            Message(role="system", content=system, segment="control"),
            Message(role="user", content=prompt, segment="stimulus"),
        )
    control = Message(role="user", content=prompt, segment="control")
    if stimulus is None:
        return "control", (control,)
    return "stimulus", (
        control,
        Message(role="assistant", content=ACKNOWLEDGEMENT, segment="control"),
        Message(role="user", content=stimulus, segment="stimulus"),
    )


def conversation_from_messages(messages: ChatMessages) -> tuple[View, tuple[Message, ...]]:
    """Build a conversation from chat messages; return its view and messages.

    Where messages have no segment, a system message that comes first is the control, which a
    decoder with masking is not shown (view `system`). Without one nothing is withheld (view
    `control`): the first message counts as the control, later ones of the user as stimuli and of
    the assistant as completions. Messages that all have a segment keep it. A message of role
    `text`, alone, is natural text that the target reads without its chat template.

    Raises:
        DataError: a message is not of that form, or some say their segment and others do not.
    """
    # what a file or a caller gives may be anything
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence) or not messages:
        got = "an empty list" if messages == [] else type(messages).__name__
        raise DataError(
            f'messages: got {got}, expected a list of {{"role", "content"}} with at least one.'
        )
    for number, message in enumerate(messages, 1):
        _check(number, message)
    said = ["segment" in message for message in messages]
    if any(said) and not all(said):
        raise DataError(
            f"messages: message {said.index(False) + 1} has no segment although others "
            "have, expected a segment for all messages or for none."
        )
    if all(said):
        found = tuple(
            Message(role=m["role"], content=m["content"], segment=cast(Segment, m["segment"]))
            for m in messages
        )
        return _view(found), found
    system = messages[0]["role"] == "system"
    found = tuple(
        Message(role=m["role"], content=m["content"], segment=_segment(i, m["role"]))
        for i, m in enumerate(messages)
    )
    return ("system" if system and len(found) > 1 else "control"), found


def parse_messages(text: str, source: str) -> ChatMessages:
    """Parse chat messages from JSON: a list of them, or an object with the key `messages`.

    Args:
        text: the JSON.
        source: where the text is from, for error messages.

    Raises:
        DataError: it is no such JSON.
    """
    try:
        value: Any = load_json(text)
    except ValueError as error:
        raise DataError(
            f"{source}: not valid JSON ({error}), expected a list of messages."
        ) from error
    if isinstance(value, dict) and "messages" in value:
        value = value["messages"]
    conversation_from_messages(value)
    return cast(ChatMessages, value)


def _check(number: int, message: Any) -> None:
    where = f"messages: message {number}"
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise DataError(f'{where} is {_short(message)}, expected {{"role", "content"}}.')
    if extra := sorted(set(message) - set(_KEYS)):
        raise DataError(f"{where} has the key {extra[0]!r}, expected only {', '.join(_KEYS)}.")
    if message["role"] not in ROLES:
        raise DataError(f"{where} has role {_short(message['role'])}, expected {', '.join(ROLES)}.")
    if not isinstance(message["content"], str) or not message["content"].strip():
        raise DataError(f"{where} has content {_short(message['content'])}, expected some text.")
    if "segment" in message and message["segment"] not in _SEGMENTS:
        raise DataError(
            f"{where} has segment {_short(message['segment'])}, expected {', '.join(_SEGMENTS)}."
        )


def _segment(place: int, role: str) -> Segment:
    if place == 0:
        return "control"
    return "completion" if role == "assistant" else "stimulus"


def _view(messages: Sequence[Message]) -> View:
    segments = [message.segment for message in messages]
    if "control" not in segments or segments[-1] == "control":
        return "control"
    if messages[segments.index("control")].role == "system":
        return "system"
    return "stimulus_completion" if segments[-1] == "completion" else "stimulus"


def _short(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False, default=str), most=60)
