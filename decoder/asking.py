"""Asking: activations and questions in, answers in words out, greedily, with the cache.

Shapes: B rows, Q questions, P prefix tokens, T turn tokens.
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
    on from its keys and values. Questions of one length are answered together: padding between a
    prefix and its answer would not be exact for models with sliding windows.

    Args:
        readings: one a question; all with vectors, or all without.
        max_tokens: longest answer, in tokens.
    """
    rows = list({id(reading): reading for reading in readings}.values())
    row_of = {id(reading): i for i, reading in enumerate(rows)}
    by_length: dict[int, list[list[tuple[int, Turn]]]] = {}
    for i, (reading, question) in enumerate(zip(readings, questions, strict=True)):
        turn = decoder.prompt.turn(question, None)
        own = by_length.setdefault(len(turn.ids), [[] for _ in rows])
        own[row_of[id(reading)]].append((i, turn))
    out: dict[int, Answer] = {}
    prefixes = None
    for asked in by_length.values():
        turns = [[turn for _, turn in own] for own in asked]
        batch = to_device(make_batch(decoder.prompt, rows, turns), decoder.device)
        prefixes = prefixes or prefix_cache(decoder.net, decoder.injection, batch)
        found = _answer(decoder, batch, copy.deepcopy(prefixes), max_tokens)
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
    positions = batch["turn_positions"]
    asked = len(ids)
    end = decoder.prompt.end_of_turn
    stop = torch.zeros(asked, dtype=torch.bool, device=decoder.device)
    words, chances = [], []
    for _ in range(max_tokens):
        logits = decoder.net(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        chance, chosen = logits.float().log_softmax(-1).max(-1)
        chosen = torch.where(stop, end, chosen)
        chances.append(torch.where(stop, 0.0, chance))
        words.append(chosen)
        stop = stop | (chosen == end)
        if bool(stop.all()):
            break
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(asked, 1)], 1)
    tokens_QT = torch.stack(words, 1).cpu().numpy()
    chances_QT = torch.stack(chances, 1).cpu().numpy()
    return [
        _finish(decoder, row, chance, end)
        for row, chance in zip(tokens_QT, chances_QT, strict=True)
    ]


def _finish(decoder: Decoder, row: np.ndarray, chance: np.ndarray, end: int) -> Answer:
    ends = np.flatnonzero(row == end)
    finished = len(ends) > 0
    length = int(ends[0]) if finished else len(row)
    text = decoder.tokenizer.decode(row[:length], skip_special_tokens=True).strip()
    counted = max(1, min(length + 1, len(row)))
    return Answer(text, float(chance[:counted].mean()), finished)
