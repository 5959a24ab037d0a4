"""Asking: activations and questions in, answers in words out, greedily, with the cache.

Shapes: B rows, Q questions, G of them whose answers go on, P prefix tokens, T tokens, V words.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from activation_store.capture import Capture
from activation_store.spans import tokenize
from decoder.batch import Batch, Reading, make_batch, to_device
from decoder.forward import prefix_cache
from decoder.model import Decoder
from decoder.prompt import Turn
from decoder.reading import make_reading, withheld_tokens
from generators.schema import Message


@dataclass(frozen=True, slots=True)
class Answer:
    """A written answer; `log_probability` is the mean over its tokens, in nats."""

    text: str
    log_probability: float
    finished: bool


@torch.inference_mode()
def answer(
    decoder: Decoder, readings: Sequence[Reading], questions: Sequence[str], *, max_tokens: int = 40
) -> list[Answer]:
    """One answer for each pair of a reading and a question.

    A reading that is given several times runs through the decoder once, and all its questions go
    on from its keys and values. All are answered together; where the model has sliding windows,
    those of one length: padding between a question and its answer would take places in the window.

    Args:
        readings: one a question; all with vectors, or all without.
        max_tokens: longest answer, in tokens.
    """
    rows = list({id(reading): reading for reading in readings}.values())
    row_of = {id(reading): i for i, reading in enumerate(rows)}
    by_length: dict[int, list[list[tuple[int, Turn]]]] = {}
    for i, (reading, question) in enumerate(zip(readings, questions, strict=True)):
        turn = decoder.prompt.turn(question, None)
        length = 0 if decoder.packs else len(turn.ids)
        own = by_length.setdefault(length, [[] for _ in rows])
        own[row_of[id(reading)]].append((i, turn))
    out: dict[int, Answer] = {}
    prefixes = None
    for asked in by_length.values():
        turns = [[turn for _, turn in own] for own in asked]
        batch = to_device(make_batch(decoder.prompt, rows, turns), decoder.device)
        prefixes = prefixes or prefix_cache(decoder.net, decoder.injection, batch)
        cache = prefixes if len(by_length) == 1 else copy.deepcopy(prefixes)
        found = _answer(decoder, batch, cache, max_tokens)
        out |= dict(zip([i for own in asked for i, _ in own], found, strict=True))
    return [out[i] for i in range(len(out))]


@torch.inference_mode()
def capture_reading(
    decoder: Decoder, messages: Sequence[Message], *, view: str, layer: int | None = None
) -> Reading:
    """Run the target (the decoder with its adapter off) on a conversation and read its layers.

    Args:
        layer: which of the layers that the decoder reads; None takes its first.

    Raises:
        ConfigError: the decoder does not read `layer`.
        DataError: the template refuses the messages, or masking leaves nothing.
    """
    layers = decoder.reads(layer)
    tokens = tokenize(decoder.tokenizer, messages)
    first = withheld_tokens(view, tokens.withheld, masking=decoder.config.masking)
    with decoder.untrained():
        found = Capture(decoder.net.get_base_model(), layers.layers)([tokens.ids])
    vectors = [found[k][0].float().cpu().numpy() for k in layers.layers]
    return make_reading(vectors, first, layers)


def _answer(decoder: Decoder, batch: Batch, cache: Any, max_tokens: int) -> list[Answer]:
    """Answers to the batch's questions; `cache` is its rows' own and is used up."""
    cache.batch_select_indices(batch["row_of"])
    ids, mask = batch["turn_ids"], batch["turn_mask"]
    asked, width = ids.shape
    last_Q = mask[:, -width:].sum(1) - 1
    positions = batch["turn_positions"]
    ends = torch.arange(width, device=ids.device) == last_Q[:, None]  # where an answer begins
    end = decoder.prompt.end_of_turn
    words_QT = torch.full((asked, max_tokens), end, device=ids.device)
    chances_QT = torch.zeros(asked, max_tokens, device=ids.device)
    going = torch.arange(asked, device=ids.device)
    for t in range(max_tokens):
        logits_GV = decoder.net(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=ends,
        ).logits
        chance, chosen = logits_GV.float().log_softmax(-1).max(-1)
        words_QT[going, t], chances_QT[going, t] = chosen, chance
        positions = positions[ends][:, None] + 1
        on = chosen != end
        if not bool(on.all()):
            # what has ended costs no further pass
            going, chosen, positions, mask = going[on], chosen[on], positions[on], mask[on]
            if not len(going):
                break
            cache.batch_select_indices(on.nonzero()[:, 0])
        ids = chosen[:, None]
        ends = torch.ones_like(ids, dtype=torch.bool)
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
    return [
        _finish(decoder, row, chance, end)
        for row, chance in zip(words_QT.cpu().numpy(), chances_QT.cpu().numpy(), strict=True)
    ]


def _finish(decoder: Decoder, row: np.ndarray, chance: np.ndarray, end: int) -> Answer:
    ends = np.flatnonzero(row == end)
    finished = len(ends) > 0
    length = int(ends[0]) if finished else len(row)
    text = decoder.tokenizer.decode(row[:length], skip_special_tokens=True).strip()
    counted = max(1, min(length + 1, len(row)))
    return Answer(text, float(chance[:counted].mean()), finished)
