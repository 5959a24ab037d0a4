"""Generation of answers: activations and questions in, answers in words out.

Shapes: B rows, Q questions, G of them whose answers are unfinished, P prefix tokens, T tokens,
V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from activation_store.target.host_copy import send
from decoder.batch import Batch, check_positions, stack_rows, to_device
from decoder.forward import attention_mask, compute_prefix_cache, select_rows
from decoder.head import logits_at
from decoder.model import Decoder
from decoder.question_prompt import Turn
from decoder.reading import Reading

_LOOK = 8
"""Tokens that an accelerator writes before the host looks which answers are finished. On a CPU it
looks at each token, since there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A written answer.

    Attributes:
        text: the answer in words.
        log_probability: mean over its tokens, end of turn included, in nats.
        finished: whether the decoder ended it itself, before the longest length.
        tokens: its tokens as texts, end of turn included where it is finished.
        token_log_probabilities: log-probability of each of them, in nats; also of a drawn answer
            at temperature 1.
    """

    text: str
    log_probability: float
    finished: bool
    tokens: tuple[str, ...] = ()
    token_log_probabilities: tuple[float, ...] = ()


@torch.inference_mode()
def generate_answers(
    decoder: Decoder,
    readings: Sequence[Reading],
    questions: Sequence[str],
    *,
    max_tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """Generate an answer for each pair of a reading and a question.

    A reading that is given several times runs through the decoder once, and all its questions
    continue its keys and values. All are answered in one batch; where the model has sliding
    windows, those of one length: padding between a question and its answer would take places in
    the window.

    Args:
        decoder: answers.
        readings: one per question; all with vectors, or all without.
        questions: what is asked.
        max_tokens: longest answer, in tokens.
        temperature: 0 takes the likeliest token at each place; above it, tokens are drawn.
        seed: of what is drawn.

    Raises:
        DataError: a prompt with its answer may be longer than the model encodes positions alike.
    """
    sampler = None if temperature == 0 else TokenSampler(temperature, seed, decoder.device)
    rows = list({id(reading): reading for reading in readings}.values())
    row_of = {id(reading): i for i, reading in enumerate(rows)}
    by_length: dict[int, list[list[tuple[int, Turn]]]] = {}
    for i, (reading, question) in enumerate(zip(readings, questions, strict=True)):
        turn = decoder.prompt.turn(question, None)
        length = 0 if decoder.can_pack else len(turn.ids)
        own = by_length.setdefault(length, [[] for _ in rows])
        own[row_of[id(reading)]].append((i, turn))
    out: dict[int, Answer] = {}
    prefixes = None
    for asked in by_length.values():
        turns = [[turn for _, turn in own] for own in asked]
        prompts = [decoder.prompt.prefix(reading) for reading in rows]
        most = decoder.prompt.most_positions
        check_positions(prompts, turns, most, more=max_tokens - 1)
        batch = to_device(stack_rows(prompts, rows, turns, most=most), decoder.device)
        prefixes = prefixes or compute_prefix_cache(decoder.net, decoder.injection, batch)
        cache = prefixes if len(by_length) == 1 else copy.deepcopy(prefixes)
        found = continue_turns(decoder, batch, cache, max_tokens=max_tokens, sampler=sampler)
        out |= dict(zip([i for own in asked for i, _ in own], found, strict=True))
    return [out[i] for i in range(len(out))]


class TokenSampler:
    """Samples the next token of each question.

    Args:
        temperature: above 0.
        seed: of what is drawn.
        device: of the log-probabilities.
    """

    def __init__(self, temperature: float, seed: int, device: torch.device) -> None:
        self._temperature = temperature
        self._generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, chances_GV: torch.Tensor) -> torch.Tensor:
        """Draw a token [G] from log-probabilities [G, V]."""
        weights = (chances_GV / self._temperature).softmax(-1)
        return torch.multinomial(weights, 1, generator=self._generator)[:, 0]


def continue_turns(
    decoder: Decoder,
    batch: Batch,
    cache: DynamicCache,
    *,
    max_tokens: int,
    sampler: Callable[[torch.Tensor], torch.Tensor] | None = None,
    may_be_empty: bool = True,
) -> list[Answer]:
    """Write what follows each turn of a batch, up to the end of turn.

    Args:
        decoder: writes.
        batch: rows with their turns, which hold no answer.
        cache: keys and values of the rows' prefixes; it is used up.
        max_tokens: longest answer, in tokens.
        sampler: takes the next token [G] from log-probabilities [G, V]; None the likeliest.
        may_be_empty: whether the first token may end the turn.
    """
    select_rows(cache, batch["row_of"])
    ids, mask = batch["turn_ids"], batch["turn_mask"]
    asked, width = ids.shape
    device = ids.device
    # where an answer begins
    ends = torch.arange(asked, device=device) * width + mask[:, -width:].sum(1) - 1
    positions = batch["turn_positions"]
    end = decoder.prompt.end_of_turn
    words_QT = torch.full((asked, max_tokens), end, device=device)
    chances_QT = torch.zeros(asked, max_tokens, device=device)
    going = torch.arange(asked, device=device)
    on = torch.ones(asked, dtype=torch.bool, device=device)
    for t in range(max_tokens):
        with logits_at(decoder.net, ends):
            logits_GV = decoder.net(
                input_ids=ids,
                attention_mask=attention_mask(decoder.net, mask, ids),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits
        logp_GV = logits_GV.float().log_softmax(-1)
        allowed_GV = logp_GV
        if t == 0 and not may_be_empty:
            allowed_GV = logp_GV.clone()
            allowed_GV[:, end] = -torch.inf
        chosen = allowed_GV.argmax(-1) if sampler is None else sampler(allowed_GV)
        chance = logp_GV.gather(-1, chosen[:, None])[:, 0]
        words_QT[going, t], chances_QT[going, t] = chosen, chance
        positions = positions.flatten().index_select(0, ends)[:, None] + 1
        on = on & (chosen != end)
        if device.type == "cpu" or t % _LOOK == _LOOK - 1:
            left = _find_unfinished(on)
            if left is not None:
                # a finished answer costs no further forward pass
                going, chosen, positions = going[left], chosen[left], positions[left]
                mask, on = mask[left], on[left]
                if not len(going):
                    break
                select_rows(cache, left)
        ids = chosen[:, None]
        ends = torch.arange(len(ids), device=device)
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
    return [
        _finish(decoder, row, chance, end)
        for row, chance in zip(words_QT.cpu().numpy(), chances_QT.cpu().numpy(), strict=True)
    ]


def _find_unfinished(on: torch.Tensor) -> torch.Tensor | None:
    """Return the indices of the answers that go on; None where all do. The host waits here."""
    found = on.cpu()
    return None if bool(found.all()) else send(found.nonzero()[:, 0], on.device)


def _finish(decoder: Decoder, row: np.ndarray, chance: np.ndarray, end: int) -> Answer:
    ends = np.flatnonzero(row == end)
    finished = len(ends) > 0
    length = int(ends[0]) if finished else len(row)
    text = decoder.tokenizer.decode(row[:length], skip_special_tokens=True).strip()
    counted = max(1, min(length + 1, len(row)))
    return Answer(
        text,
        float(chance[:counted].mean()),
        finished,
        tuple(decoder.tokenizer.decode(int(token)) for token in row[:counted]),
        tuple(map(float, chance[:counted])),
    )
