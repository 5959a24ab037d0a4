"""Whether a decoder can read a control in the first place: without that, its gradient is noise.

Shapes: P prompts, Q questions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from core.records.estimate import Estimate
from core.records.steering_control import SteeringControl
from decoder.model import Decoder
from decoder.question_prompt import Turn
from decoder.scoring import compute_turn_losses
from decoder.steering.geometry import LEAST_NORM
from decoder.steering.gradient import WeightedTurn, compute_answer_gradient
from decoder.steering.prompts import SteeringPrompt, make_steering_prompt
from decoder.steering.replies import follow_by_replies
from decoder.steering.shifts import read_prompts
from evaluators.control.metrics import Readability
from evaluators.stats.estimates import Resampling, mean_estimate

_BATCH = 8
_AGREEMENT_PROMPTS = 8
"""Prompts on which gradients of questions are compared."""


def measure_readability(
    decoder: Decoder,
    control: SteeringControl,
    said: Sequence[str],
    draw: Resampling,
) -> Readability:
    """Measure what the decoder reads of a target that is told the control in a hidden prompt.

    A decoder of last tokens reads the reply of that target, which stands behind a prompt that does
    not tell it.

    Args:
        decoder: reads.
        control: what the target is told.
        said: what users say; the same of the target that is told nothing.
        draw: of prompts, for intervals.
    """
    told = [make_steering_prompt(decoder, text, system=control.system_prompt) for text in said]
    plain = [make_steering_prompt(decoder, text) for text in said]
    if tokens := decoder.config.last_tokens:
        told, plain = (follow_by_replies(decoder, plain, own, tokens) for own in (told, plain))
    wanted = [decoder.prompt.turn(q.question, q.answer) for q in control.questions]
    margin_PQ = _losses(decoder, plain, wanted) - _losses(decoder, told, wanted)

    estimate = partial(mean_estimate, draw=draw)
    margin = estimate(margin_PQ.mean(1))
    closed = [q for q in control.questions if q.instead]
    accuracy, chance = None, None
    if closed:
        hits, chances = [], []
        for question in closed:
            answers = (question.answer, *question.instead)
            turns = [decoder.prompt.turn(question.question, answer) for answer in answers]
            # what an answer gains from the control, so that a generally likely one has no start
            gained = _losses(decoder, plain, turns) - _losses(decoder, told, turns)
            hits.append(gained.argmax(1) == 0)
            chances.append(1 / len(answers))
        accuracy = estimate(np.mean(hits, 0))
        chance = float(np.mean(chances))
    cosines_PQQ = _measure_agreement(decoder, plain[:_AGREEMENT_PROMPTS], wanted)
    pairs = list(itertools.combinations(range(len(wanted)), 2))
    agreement, opposed = None, list[str]()
    if pairs:
        agreement = estimate(np.mean([cosines_PQQ[:, i, j] for i, j in pairs], 0))
    for i, j in pairs:
        cosine = estimate(cosines_PQQ[:, i, j])
        if _is_below_zero(cosine):
            first, second = control.questions[i].question, control.questions[j].question
            opposed.append(f"{first!r} against {second!r} (cosine {cosine})")
    return Readability(
        margin=margin,
        accuracy=accuracy,
        chance=chance,
        readable=_is_above_zero(margin),
        agreement=agreement,
        opposed=tuple(opposed),
    )


def _measure_agreement(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], turns: Sequence[Turn]
) -> np.ndarray:
    """Compute the cosine of the gradients of each two questions with respect to the activations.

    Questions whose gradients oppose each other cancel out, and the sum that steering follows leads
    towards neither answer.

    Returns:
        [P, Q, Q], from -1 where two questions oppose each other to 1 where they agree.
    """
    readings = read_prompts(decoder, prompts)
    directions_QP = []
    for turn in turns:
        asked = [[WeightedTurn(turn)]] * len(readings)
        gradients = compute_answer_gradient(decoder, readings, asked).gradients
        directions_QP.append([F.normalize(g.flatten(), dim=0, eps=LEAST_NORM) for g in gradients])
    return np.stack(
        [
            (own_QN @ own_QN.T).cpu().numpy()
            for own_QN in (torch.stack(own) for own in zip(*directions_QP, strict=True))
        ]
    )


def _is_above_zero(margin: Estimate) -> bool:
    """Tell whether a margin is above zero, by its interval where there is one."""
    return margin.above_zero if margin.low is not None else (margin.estimate or 0.0) > 0


def _is_below_zero(cosine: Estimate) -> bool:
    """Tell whether a cosine is below zero, by its interval where there is one."""
    highest = cosine.estimate if cosine.high is None else cosine.high
    return highest is not None and highest < 0


def _losses(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], turns: Sequence[Turn]
) -> np.ndarray:
    """Compute the loss [P, Q] of each answer, in nats per token."""
    found: list[list[float]] = []
    for start in range(0, len(prompts), _BATCH):
        readings = read_prompts(decoder, prompts[start : start + _BATCH])
        found += compute_turn_losses(decoder, readings, [turns] * len(readings))
    return np.array(found)
