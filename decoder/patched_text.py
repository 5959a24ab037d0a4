"""Prompts in plain text with activations at some of their tokens, as Patchscopes have them.

The network is the target itself, the adapter off. A prompt is any text; at the mark `PLACE` stand
one or more placeholder tokens, at whose block output the activations enter. Without a mark it is
the target reading a text. The last token is no placeholder: what follows is predicted from it.

Shapes: T tokens, R placeholders, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from activation_store.tokens.tokens import encode_continuation, encode_plain_text
from decoder.asking import Answer, continue_turns
from decoder.batch import batches_by_length, check_positions, stack_rows, to_device
from decoder.forward import compute_answer_losses, compute_prefix_cache
from decoder.injection import Injection
from decoder.model import Decoder
from decoder.question_prompt import Prefix, Turn
from decoder.reading import Reading

PLACE = "\ue0ff"
"""Stands in a text where the placeholders are to stand; no character of any language."""
_PLACEHOLDER = " x"
_ROWS = 32
"""Texts of one forward pass."""


@dataclass(frozen=True, slots=True)
class PatchedText:
    """A text as tokens, and the activations that enter at its placeholders.

    Attributes:
        ids: [T] int64 token ids; at least two.
        places: [R] indices of the placeholders, none of them the last token.
        vectors: [R, D] float32; None where there is no placeholder.
    """

    ids: np.ndarray
    places: np.ndarray
    vectors: np.ndarray | None

    @classmethod
    def make(
        cls, tokenizer: Any, text: str, vector: np.ndarray | None = None, *, repeats: int = 1
    ) -> PatchedText:
        """Tokenize a text with at most one `PLACE` in it.

        Args:
            tokenizer: of the target.
            text: rendered by a chat template, or raw; a raw one is given the token that begins a
                text where the tokenizer has one.
            vector: [D] activation that enters at each placeholder; None for a text without any.
            repeats: placeholders that stand at the mark.

        Raises:
            ValueError: mark and vector do not belong together, or nothing follows the mark.
        """
        before, mark, after = text.partition(PLACE)
        if bool(mark) != (vector is not None) or (mark and not after):
            raise ValueError("a patched text needs a vector, a mark, and some text after the mark")
        head = encode_plain_text(tokenizer, before).ids
        if vector is None:
            if len(head) < 2:  # what follows is predicted from a token with one before it
                head = encode_plain_text(tokenizer, f"\n{before}").ids
            return cls(head, np.zeros(0, np.int64), None)
        placeholder = encode_continuation(tokenizer, _PLACEHOLDER)
        if len(placeholder) == 1:  # its own space stands for the one before it
            head = encode_plain_text(tokenizer, before.removesuffix(" ")).ids
        fill = np.full(repeats, placeholder[-1])
        ids = np.concatenate([head, fill, encode_continuation(tokenizer, after)])
        places = len(head) + np.arange(repeats)
        return cls(ids, places, np.repeat(vector[None], repeats, 0).astype(np.float32))


@torch.inference_mode()
def continue_texts(
    decoder: Decoder, injection: Injection, texts: Sequence[PatchedText], *, max_tokens: int
) -> list[Answer]:
    """Write what the target continues each text with, greedily, and at least one token.

    An instruct model is apt to end a turn where raw text leaves off.

    Args:
        decoder: whose target writes.
        injection: where activations enter.
        texts: all with activations, or all without.
        max_tokens: longest continuation, in tokens.
    """
    out: dict[int, Answer] = {}
    most = decoder.prompt.most_positions
    with decoder.without_adapter():
        for rows in batches_by_length([len(text.ids) for text in texts], rows=_ROWS):
            chosen = [texts[i] for i in rows]
            turns = [[_turn(text, text.ids[:0])] for text in chosen]
            prefixes, readings = _prefixes(chosen)
            check_positions(prefixes, turns, most, more=max_tokens - 1)
            batch = to_device(stack_rows(prefixes, readings, turns, most=most), decoder.device)
            cache = compute_prefix_cache(decoder.net, injection, batch)
            written = continue_turns(
                decoder, batch, cache, max_tokens=max_tokens, may_be_empty=False
            )
            out |= dict(zip(rows, written, strict=True))
    return [out[i] for i in range(len(texts))]


@torch.inference_mode()
def score_continuations(
    decoder: Decoder,
    injection: Injection,
    texts: Sequence[PatchedText],
    options: Sequence[Sequence[str]],
) -> list[list[float]]:
    """Compute the loss of given continuations of each text, in nats per token.

    Args:
        decoder: whose target is asked.
        injection: where activations enter.
        texts: all with activations, or all without.
        options: of each text, its continuations, at least one.
    """
    owners: list[int] = []
    losses: list[torch.Tensor] = []
    tokenizer, most = decoder.tokenizer, decoder.prompt.most_positions
    with decoder.without_adapter():
        for rows in batches_by_length([len(text.ids) for text in texts], rows=_ROWS):
            chosen = [texts[i] for i in rows]
            turns = [
                [_turn(texts[i], encode_continuation(tokenizer, option)) for option in options[i]]
                for i in rows
            ]
            batch = to_device(stack_rows(*_prefixes(chosen), turns, most=most), decoder.device)
            losses.append(compute_answer_losses(decoder.net, injection, batch))
            owners += [i for i in rows for _ in options[i]]
    out: list[list[float]] = [[] for _ in texts]
    for owner, loss in zip(owners, torch.cat(losses).cpu().tolist() if losses else [], strict=True):
        out[owner].append(loss)
    return out


def _prefixes(texts: Sequence[PatchedText]) -> tuple[list[Prefix], list[Reading]]:
    """Cut the last token off each text; it begins the turn."""
    prefixes = [Prefix(text.ids[:-1], text.places, np.arange(len(text.ids) - 1)) for text in texts]
    readings = [Reading(text.vectors, len(text.places), 0) for text in texts]
    return prefixes, readings


def _turn(text: PatchedText, written: np.ndarray) -> Turn:
    """Make the turn of a text's last token, which is no answer, and what is written behind it."""
    ids = np.concatenate([text.ids[-1:], written])
    return Turn(ids, np.arange(len(ids)) > 0)
