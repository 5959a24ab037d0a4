"""Whether the questions of a control pull the same way: the cosines of their gradients.

Questions whose gradients oppose each other cancel out, and the sum that steering follows leads
towards neither answer.

Shapes: P prompts, Q questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from decoder.model import Decoder
from decoder.question_prompt import Turn
from decoder.steering.geometry import LEAST_NORM
from decoder.steering.gradient import WeightedTurn, compute_answer_gradient
from decoder.steering.prompts import SteeringPrompt
from decoder.steering.shifts import read_prompts


def measure_agreement(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], turns: Sequence[Turn]
) -> np.ndarray:
    """Compute the cosine of the gradients of each two questions with respect to the activations.

    Args:
        decoder: is asked; its target runs on the prompts.
        prompts: P prompts.
        turns: Q questions with the answers wanted.

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
