"""A conversation as tokens, with the segment of each token, for any chat template.

Each message's content is wrapped in a pair of private-use characters, the conversation is rendered
to text, and the marks are taken out again: what stood between them is that content. The text
without marks must equal the plain rendering, so nothing depends on how a template is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.errors import DataError
from generators.schema import Message

SEGMENT_CODES = {"template": 0, "control": 1, "stimulus": 2, "completion": 3}
# Llama-3's template writes the date; a fixed one keeps a store's tokens the same on every day
DATE = "01 Jan 2025"
_FIRST_MARK = 0xE000


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


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, generation: bool) -> str:
    """The chat template's text for `messages`.

    Raises:
        DataError: the template refuses them (Gemma: system role; Mistral: two users in a row).
    """
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generation, date_string=DATE
        )
    except Exception as error:  # jinja raises TemplateError, templates raise whatever they like
        raise DataError(
            f"the chat template refuses roles {[m['role'] for m in messages]} ({error})."
        ) from error


def tokenize(tokenizer: Any, messages: Sequence[Message]) -> Tokens:
    """Tokens of a target conversation, with a generation prompt except after a completion.

    Raises:
        DataError: the template refuses, cuts or changes a message, or a content holds one of the
            model's control tokens.
    """
    generation = messages[-1].role != "assistant"
    plain = [{"role": m.role, "content": m.content} for m in messages]
    text, spans = locate(tokenizer, plain, generation=generation)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.asarray(encoded["input_ids"], np.int32)
    offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
    special = np.isin(ids, tokenizer.all_special_ids)
    segments = np.zeros(len(ids), np.uint8)
    for message, (start, stop) in zip(messages, spans, strict=True):
        inside = (offsets[:, 0] < stop) & (offsets[:, 1] > start)
        if (special & inside).any():
            name = tokenizer.convert_ids_to_tokens(int(ids[special & inside][0]))
            raise DataError(
                f"a message of segment {message.segment} holds the control token {name}; "
                "escape or remove it."
            )
        segments[inside] = SEGMENT_CODES[message.segment]
    return Tokens(ids, segments, _withheld(tokenizer, messages, ids, offsets, special, spans))


def locate(
    tokenizer: Any, messages: list[dict[str, str]], *, generation: bool
) -> tuple[str, list[tuple[int, int]]]:
    """The chat template's text for `messages`, and where in it each content stands.

    Raises:
        DataError: the template refuses, cuts or changes a message.
    """
    text = render(tokenizer, messages, generation=generation)
    for strip in (False, True):  # some templates strip contents, and would strip outside the marks
        marks = [
            (chr(_FIRST_MARK + 2 * i), chr(_FIRST_MARK + 2 * i + 1)) for i in range(len(messages))
        ]
        marked = [
            {"role": m["role"], "content": a + (m["content"].strip() if strip else m["content"]) + b}
            for m, (a, b) in zip(messages, marks, strict=True)
        ]
        found = render(tokenizer, marked, generation=generation)
        if all(found.count(mark) == 1 for pair in marks for mark in pair):
            spans = [
                (_place(found, a, marks), _place(found, b, marks)) for a, b in marks
            ]
            if _without(found, marks) == text:
                return text, spans
    raise DataError(
        "the chat template cuts, drops or changes a message "
        f"(roles {[m['role'] for m in messages]}); its tokens cannot be told apart."
    )


def _without(text: str, marks: list[tuple[str, str]]) -> str:
    return text.translate({ord(mark): None for pair in marks for mark in pair})


def _place(text: str, mark: str, marks: list[tuple[str, str]]) -> int:
    return len(_without(text[: text.index(mark)], marks))


def _withheld(
    tokenizer: Any,
    messages: Sequence[Message],
    ids: np.ndarray,
    offsets: np.ndarray,
    special: np.ndarray,
    spans: list[tuple[int, int]],
) -> int:
    control = [i for i, m in enumerate(messages) if m.segment == "control"]
    if not control or control[-1] == len(messages) - 1:
        return 0
    stop, start = spans[control[-1]][1], spans[control[-1] + 1][0]
    # the control's turn ends with a special token, and the white space that belongs to it; in a
    # template without one, the next message's own content is where it ends
    between = np.flatnonzero((offsets[:, 0] >= stop) & (offsets[:, 1] <= start))
    ends = between[special[between]]
    if not len(ends):
        return int(np.flatnonzero(offsets[:, 1] > start)[0])
    cut = int(ends[0]) + 1
    while cut <= between[-1] and not special[cut] and not tokenizer.decode(ids[cut]).strip():
        cut += 1
    return cut
