"""A conversation as tokens, with the segment of each token, for any chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activation_store.tokens.content_spans import locate
from activation_store.tokens.template import render
from core.errors import DataError
from core.records.tables import PLAIN_TEXT, Conversation, Message
from core.records.tool_use import for_template, message_text, offered_tools

SEGMENT_CODES = {"template": 0, "control": 1, "stimulus": 2, "completion": 3}
COMPLETION_IDS = "completion_ids"
"""Key in the provenance of a row whose completion the target wrote: the token ids that it
generated, up to its end of turn."""

EMBEDDED_TOKENS = "latentqa_embedded_tokens"
"""Attribute of a tokenizer: the number of tokens that the model it is of has an embedding for."""

Array = np.ndarray[Any, Any]


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

    ids: Array
    segments: Array
    withheld: int


def tokenize(tokenizer: Any, messages: Sequence[Message]) -> Tokens:
    """Tokenize a target conversation, with a generation prompt except after a completion.

    Raises:
        DataError: the template refuses, cuts or changes a message, or a content holds one of the
            model's control tokens.
    """
    return tokenize_with_text(tokenizer, messages)[0]


def tokenize_row(tokenizer: Any, row: Conversation) -> Tokens:
    """Tokenize a row; a completion that the target wrote is the tokens that it generated.

    Raises: as `tokenize`.
    """
    own = row.provenance.get(COMPLETION_IDS)
    if not own:
        return tokenize(tokenizer, row.messages)
    prompt = tokenize(tokenizer, row.messages[:-1])
    written = np.asarray(own, np.int32)
    segments = np.full(len(written), SEGMENT_CODES["completion"], np.uint8)
    segments[np.isin(written, special_ids(tokenizer))] = SEGMENT_CODES["template"]
    return Tokens(
        np.concatenate([prompt.ids, written]),
        np.concatenate([prompt.segments, segments]),
        prompt.withheld,
    )


def tokenize_with_text(tokenizer: Any, messages: Sequence[Message]) -> tuple[Tokens, Encoded]:
    """Tokenize a conversation; return also where each token stands in its text.

    Raises: as `tokenize`.
    """
    if any(message.role == PLAIN_TEXT for message in messages):
        return _tokenize_plain_text(tokenizer, messages)
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


def _tokenize_plain_text(tokenizer: Any, messages: Sequence[Message]) -> tuple[Tokens, Encoded]:
    """Tokenize the only message of a row without the chat template."""
    if len(messages) > 1:
        raise DataError(
            f"a message of role {PLAIN_TEXT!r} comes with {len(messages) - 1} others, "
            "expected it alone, because it is read without the chat template."
        )
    (message,) = messages
    encoded = encode_plain_text(tokenizer, message.content)
    own = encoded.inside(0, len(message.content), f"a message of segment {message.segment}")
    segments = np.where(own, SEGMENT_CODES[message.segment], SEGMENT_CODES["template"])
    return Tokens(encoded.ids.astype(np.int32), segments.astype(np.uint8), 0), encoded


def encode_plain_text(tokenizer: Any, text: str) -> Encoded:
    """Tokenize a text, with the tokenizer's begin-of-sequence token first if it has one."""
    encoded = Encoded.of(tokenizer, text)
    begins = list(tokenizer("", add_special_tokens=True)["input_ids"])[:1]
    if not begins or begins[0] != tokenizer.bos_token_id or list(encoded.ids[:1]) == begins:
        return encoded
    return Encoded(
        text,
        ids=np.concatenate([np.array(begins, np.int64), encoded.ids]),
        starts=np.concatenate([[0], encoded.starts]),
        stops=np.concatenate([[0], encoded.stops]),
        special=np.concatenate([[True], encoded.special]),
        names={begins[0]: str(tokenizer.bos_token), **encoded.names},
    )


def encode_continuation(tokenizer: Any, text: str) -> Array:
    """Tokenize a text that goes on behind another, and return its ids.

    Some tokenizers (SentencePiece) write a space before whatever they are given.
    """
    border = Encoded.of(tokenizer, "\n").ids
    ids = Encoded.of(tokenizer, f"\n{text}").ids
    if np.array_equal(ids[: len(border)], border):
        return ids[len(border) :]
    return Encoded.of(tokenizer, text).ids  # it joins a break of lines


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the control token with which the template ends an assistant's turn, if it has one.

    Where a turn has no end of its own (GLM), it is the token that begins the next: such models
    write it when they have replied.
    """
    return next(iter(_written_ends(tokenizer)), None)


def ends_of_reply(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a reply: the template's end of turn and the end of text.

    A template may end the last turn of a conversation otherwise than those before it (OLMo 3).
    """
    written = _written_ends(tokenizer)
    if len(set(written)) > 1 and not _is_one_message(tokenizer):
        written = written[:1]
    ends = {*written, tokenizer.eos_token_id}
    return frozenset(int(i) for i in ends if i is not None)


_TURNS = [{"role": role, "content": role[0]} for role in ("user", "assistant", "user")]


def _written_ends(tokenizer: Any) -> list[int]:
    """Return the control tokens that end a last turn of the assistant's, and one before others."""
    found: list[int] = []
    for said in (_TURNS[:2], _TURNS):
        try:
            text, spans = locate(tokenizer, said, generation=False)
        except DataError:
            break
        encoded = Encoded.of(tokenizer, text)
        ends = np.flatnonzero(encoded.special & (encoded.stops > spans[1][1]))
        found += encoded.ids[ends[:1]].tolist()
    return found


def _is_one_message(tokenizer: Any) -> bool:
    """Return whether a reply begins where its content does, not with a channel of its own."""
    prompt = render(tokenizer, _TURNS[:1], generation=True)
    text, spans = locate(tokenizer, _TURNS[:2], generation=False)
    before = text[: spans[1][0]]
    rest = before.removeprefix(prompt)
    return prompt.startswith(before) or not Encoded.of(tokenizer, rest).special.any()


def special_ids(tokenizer: Any) -> list[int]:
    """Return the ids of all control tokens.

    A header token of a template need not be among the tokenizer's own bos, eos and others.
    """
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(added | set(tokenizer.all_special_ids))


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
    ids: Array
    starts: Array
    stops: Array
    special: Array
    names: dict[int, str]

    @classmethod
    def of(cls, tokenizer: Any, text: str) -> Encoded:
        """Tokenise a rendered text, whose control tokens are in it already.

        Raises:
            DataError: the model has no embedding for one of its tokens.
        """
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(encoded["input_ids"], np.int64)
        embedded = getattr(tokenizer, EMBEDDED_TOKENS, None)
        if embedded is not None and ids.max(initial=-1) >= embedded:
            name = tokenizer.convert_ids_to_tokens(int(ids.max()))
            raise DataError(
                f"the token {name} is number {ids.max()} of the tokenizer, and the model has "
                f"embeddings for {embedded}; escape or remove it."
            )
        offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        special = np.isin(ids, special_ids(tokenizer))
        names = {int(i): str(tokenizer.convert_ids_to_tokens(int(i))) for i in ids[special]}
        return cls(text, ids, offsets[:, 0], offsets[:, 1], special, names)

    def inside(self, start: int, stop: int, what: str, message_text: str | None = None) -> Array:
        """Return which tokens [T] overlap characters `start` to `stop`, control tokens left out.

        A control token can take white space of its neighbours with it (Phi-3), and overlap so.

        Args:
            start: first character.
            stop: the one after the last.
            what: whose characters they are, for the error.
            message_text: what of them is not the template's; None for all.

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
        own_tokens: Array = overlap & ~self.special
        return own_tokens


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
