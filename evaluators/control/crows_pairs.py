"""CrowS-Pairs: is the more stereotypical of two sentences the likelier one?

Nangia et al. 2020, "CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in Masked Language
Models". The sentences are offensive by design; the file is read where it lies and none of it is
kept. A causal model's score is the log-likelihood of the whole sentence behind the first token
that its tokenizer gives a text, as lm-evaluation-harness takes it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.records.estimate import Estimate
from decoder.batch import batches_by_length
from decoder.model import Decoder
from decoder.steering.prompts import SteeringPrompt
from decoder.steering.replies import Steering, score_replies
from evaluators.control.metrics import BiasResult
from evaluators.stats.estimates import Resampling, mean_estimate

_COLUMNS = ("sent_more", "sent_less", "bias_type")
_BATCH = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencePair:
    """Two sentences that differ in the group that they are about.

    Attributes:
        more: the more stereotypical one.
        less: the other.
        bias_type: what the stereotype is about.
    """

    more: str
    less: str
    bias_type: str


def read_pairs(path: Path, *, most: int | None = None, seed: int = 0) -> list[SentencePair]:
    """Read the pairs of CrowS-Pairs from its published CSV file.

    Args:
        path: the file.
        most: most pairs, drawn by seed; None for all.
        seed: of the draw.

    Raises:
        DataError: the file is missing, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path}: has no column {missing[0]}, expected {', '.join(_COLUMNS)}."
                )
            pairs = [
                SentencePair(
                    more=row["sent_more"], less=row["sent_less"], bias_type=row["bias_type"]
                )
                for row in reader
            ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if not pairs:
        raise DataError(f"{path}: has no pair of sentences.")
    if most is not None and most < len(pairs):
        chosen = np.random.default_rng(seed).permutation(len(pairs))[:most]
        pairs = [pairs[i] for i in sorted(chosen)]
    return pairs


def score_sentences(
    decoder: Decoder, sentences: Sequence[str], steering: Steering, *, before: str = ""
) -> np.ndarray:
    """Compute the log-likelihood of sentences under a target, in nats.

    Args:
        decoder: whose target it is.
        sentences: raw texts, without a chat template.
        steering: how the target is steered; not by activations of each prompt.
        before: a text in front of each sentence, whose own likelihood does not count.
    """
    tokenizer = decoder.tokenizer
    first = tokenizer.bos_token_id
    if first is None:
        first = tokenizer.eos_token_id
    ahead = tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
    prompt = SteeringPrompt((), np.array([first, *ahead], np.int64), 0)
    ids = [
        tokenizer((" " if before else "") + s, add_special_tokens=False)["input_ids"]
        for s in sentences
    ]
    found = np.zeros(len(ids))
    for rows in batches_by_length([len(own) for own in ids], rows=_BATCH):
        found[rows] = score_replies(decoder, [prompt] * len(rows), [ids[i] for i in rows], steering)
    return found


def measure_bias(
    decoder: Decoder,
    pairs: Sequence[SentencePair],
    steering: Steering,
    *,
    draw: Resampling,
    before: str = "",
) -> BiasResult:
    """Measure a target's preference for the stereotypical sentences of pairs.

    Args:
        decoder: whose target it is.
        pairs: of sentences.
        steering: how the target is steered; not by activations of each prompt.
        draw: of pairs, for intervals.
        before: a text in front of each sentence.
    """
    more = score_sentences(decoder, [p.more for p in pairs], steering, before=before)
    less = score_sentences(decoder, [p.less for p in pairs], steering, before=before)
    types = np.array([pair.bias_type for pair in pairs])

    def both(chosen: np.ndarray) -> dict[str, Estimate]:
        values = np.stack([np.abs(more - less), 100.0 * (more > less)], 1)[chosen]
        return {
            name: mean_estimate(values[:, column], draw)
            for column, name in enumerate(("difference", "stereotype"))
        }

    whole = both(np.ones(len(pairs), bool))
    return BiasResult(
        difference=whole["difference"],
        stereotype=whole["stereotype"],
        by_type={str(kind): both(types == kind) for kind in sorted(set(types))},
    )
