"""Rows as tensors: one padded prefix per row, one padded turn per question.

Shapes: B rows, P prefix tokens (left-padded), Q questions of all rows, T turn tokens
(right-padded), N placeholders of all rows, D d_model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict, TypeVar, cast

import numpy as np
import torch

from activation_store.target.host_copy import send
from core.errors import DataError
from decoder.question_prompt import DecoderPrompt, Prefix, Turn
from decoder.reading import Reading

B = TypeVar("B", bound=Any)


class LossBatch(TypedDict, total=False):
    """Tensors of rows with Q questions, in either layout; T are the tokens of a padded row."""

    places: torch.Tensor  # [N] int64, into the flattened [B * T]; absent: nothing is injected
    vectors: torch.Tensor  # [N, D] float32
    vector_layers: torch.Tensor  # [N] int64, block of each, or UNNAMED_LAYER
    row_of: torch.Tensor  # [Q] int64, the row of each question
    predicting: torch.Tensor  # [A] int64, flattened places: tokens whose successor carries loss
    targets: torch.Tensor  # [A] int64, those successors, in the order of `predicting`
    weights: torch.Tensor  # [A] float32, 1 / tokens of the answer
    question_of: torch.Tensor  # [A] int64, the question of each target
    contrasted: torch.Tensor  # [C] int64, the same question of each of the last C; may be absent


class Batch(LossBatch, total=False):
    """Tensors of B rows with Q questions: `places` are of prefixes, `predicting` of turns."""

    prefix_ids: torch.Tensor  # [B, P] int64
    prefix_mask: torch.Tensor  # [B, P] int64
    prefix_positions: torch.Tensor  # [B, P] int64
    turn_ids: torch.Tensor  # [Q, T] int64
    turn_mask: torch.Tensor  # [Q, P + T] int64
    turn_positions: torch.Tensor  # [Q, T] int64


def make_batch(
    prompt: DecoderPrompt,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[Turn]],
) -> Batch:
    """Pad and stack rows.

    Args:
        prompt: makes the token ids.
        readings: B rows, all with vectors or all without.
        turns: for each row, its questions.

    Raises:
        ValueError: some readings have vectors, others none.
        DataError: a row is longer than the model encodes positions alike.
    """
    prefixes = [prompt.prefix(r) for r in readings]
    return stack_rows(prefixes, readings, turns, most=prompt.most_positions)


def stack_rows(
    prefixes: Sequence[Prefix],
    readings: Sequence[Reading],
    turns: Sequence[Sequence[Turn]],
    *,
    most: int | None,
) -> Batch:
    """Pad and stack rows whose prefixes are made already.

    Args:
        prefixes: B token sequences with their placeholders.
        readings: what stands at the placeholders of each, all with vectors or all without.
        turns: for each row, its questions.
        most: positions that the model encodes alike; None for all.

    Raises:
        ValueError: some readings have vectors, others none.
        DataError: a row has more than `most` positions.
    """
    check_positions(prefixes, turns, most)
    rows, width = len(readings), max(len(p.ids) for p in prefixes)
    ids = np.zeros((rows, width), np.int64)
    mask = np.zeros((rows, width), np.int64)
    positions = np.zeros((rows, width), np.int64)
    places = []
    for i, p in enumerate(prefixes):
        pad = width - len(p.ids)
        ids[i, pad:], mask[i, pad:] = p.ids, 1
        positions[i, pad:] = p.positions(0, len(p.ids))
        places.append(p.places + i * width + pad)
    flat = [(i, turn) for i, own in enumerate(turns) for turn in own]
    length = max(len(turn.ids) for _, turn in flat)
    turn_ids = np.zeros((len(flat), length), np.int64)
    turn_positions = np.zeros((len(flat), length), np.int64)
    turn_mask = np.zeros((len(flat), width + length), np.int64)
    answer = np.zeros((len(flat), length), bool)
    for q, (i, turn) in enumerate(flat):
        stop, start = len(turn.ids), len(prefixes[i].ids)
        turn_ids[q, :stop], answer[q, :stop] = turn.ids, turn.answer
        turn_positions[q, :stop] = prefixes[i].positions(start, start + stop)
        turn_mask[q, :width], turn_mask[q, width : width + stop] = mask[i], 1
    predicting = np.zeros_like(answer)
    predicting[:, :-1] = answer[:, 1:]
    question_of = np.nonzero(predicting)[0]
    arrays = {
        "prefix_ids": ids,
        "prefix_mask": mask,
        "prefix_positions": positions,
        "row_of": np.array([i for i, _ in flat], np.int64),
        "turn_ids": turn_ids,
        "turn_mask": turn_mask,
        "turn_positions": turn_positions,
        "predicting": np.flatnonzero(predicting),
        "targets": turn_ids[:, 1:][predicting[:, :-1]],
        "weights": (1 / np.maximum(answer.sum(1), 1))[question_of].astype(np.float32),
        "question_of": question_of,
    }
    batch = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return cast(Batch, batch | stack_vectors(readings, places))


def check_positions(
    prefixes: Sequence[Prefix], turns: Sequence[Sequence[Turn]], most: int | None, more: int = 0
) -> None:
    """Refuse rows past the length where a model changes how it encodes positions.

    It does so for a whole batch, and for the turn of a prefix that it has encoded before.

    Args:
        prefixes: of B rows.
        turns: for each row, its questions.
        most: positions that the model encodes alike; None for all.
        more: tokens that may be written behind each turn.

    Raises:
        DataError: a row has more than `most` positions.
    """
    if most is None:
        return
    for prefix, own in zip(prefixes, turns, strict=True):
        stop = len(prefix.ids) + max(len(turn.ids) for turn in own) + more
        if (positions := int(prefix.positions(stop - 1, stop)[0]) + 1) > most:
            raise DataError(
                f"a decoder's prompt reaches {positions} positions, but its model encodes "
                f"positions differently past {most} (rope_scaling in its config.json), so a "
                "row would depend on its neighbours. Lower dump.max_tokens, or shorten the "
                "question."
            )


def stack_vectors(
    readings: Sequence[Reading], places: Sequence[np.ndarray]
) -> dict[str, torch.Tensor]:
    """Stack the activations of rows, with where they go; nothing where there are none.

    Args:
        readings: B rows, all with vectors or all without.
        places: of each row, indices into the flattened batch.

    Raises:
        ValueError: some readings have vectors, others none.
    """
    found = [reading.vectors for reading in readings if reading.vectors is not None]
    if not found:
        return {}
    if len(found) < len(readings):
        raise ValueError("readings with and without vectors cannot share a batch")
    arrays = [vectors for vectors in found if isinstance(vectors, np.ndarray)]
    if len(arrays) == len(found):
        stacked = torch.from_numpy(np.concatenate(arrays))
    else:  # with the graph of whatever made them
        stacked = torch.cat([torch.as_tensor(vectors) for vectors in found])
    return {
        "places": torch.from_numpy(np.concatenate(places)),
        "vectors": stacked,
        "vector_layers": torch.from_numpy(np.concatenate([r.vector_layers for r in readings])),
    }


def batches_by_length(
    lengths: Sequence[int], *, rows: int = sys.maxsize, tokens: int = sys.maxsize
) -> Iterator[list[int]]:
    """Cut rows, from short to long, into batches of like length; yield the indices of each.

    Args:
        lengths: tokens of each row.
        rows: most rows of a batch.
        tokens: most tokens of a batch, padding counted; a row alone may have more.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[i] > tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def to_device(batch: B, device: torch.device) -> B:
    """Move a batch, in either layout, to `device`; the host does not wait for it."""
    moved = {name: send(value, device) for name, value in batch.items()}
    return cast(B, moved)
