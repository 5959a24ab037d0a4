"""Shift: another model's activations, read by a decoder that was trained on its own target's.

The other model, of another family or a fine-tuned sibling, reads the same texts up to the same
subjects. Its activations go through a linear map that is fitted on training texts, and where both
models have one width also as they are. The subjects are those that the decoder's own target knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from activation_store.target.load import shape_of
from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork
from decoder.sources.training_distribution import ActivationOODDetector
from evaluators.tasks.config import ShiftConfig
from evaluators.tasks.linear_map import (
    LinearMap,
    own_network,
    pair_tokens,
    read_texts,
)
from evaluators.tasks.rows import TaskData, TaskRow


def shift_tasks(
    data: TaskData, decoder: Decoder, other: TargetNetwork, config: ShiftConfig
) -> Iterator[TaskData]:
    """Build `TASK_shift_mapped`, and `TASK_shift_raw` where both models have one width.

    Args:
        data: a measured task of a relation.
        decoder: that was trained on its own target.
        other: the model whose activations are read.
        config: which of its blocks.
    """
    layer = decoder.layers[0]
    if len(decoder.select_layers().layers) > 1:
        why = "the decoder reads several layers together; only one can be mapped between models"
        yield replace(data, name=f"{data.name}_shift").unless(why)
        return
    theirs = matching_layer(decoder, other, config)
    texts = [[row.text for row in part] for part in (data.train, data.validation, data.test)]
    with decoder.without_adapter():
        own = [read_texts(own_network(decoder), part, layer) for part in texts[:2]]
    found = [read_texts(other, part, theirs) for part in texts]
    fitted = LinearMap(*pair_tokens(found[0], own[0]), held_out=pair_tokens(found[1], own[1]))
    detector = ActivationOODDetector([one.vectors[-1:] for one in own[0]])
    facts = {"map_pairs": float(sum(len(one.stops) for one in own[0])), "map_error": fitted.error}
    mapped = [[fitted(one.vectors[-1:]) for one in part] for part in found]
    yield _shifted(data, "shift_mapped", layer, mapped, detector, facts)
    raw = [[one.vectors[-1:] for one in part] for part in found]
    if raw[0][0].shape == own[0][0].vectors[-1:].shape:
        yield _shifted(data, "shift_raw", layer, raw, detector, {})


def matching_layer(decoder: Decoder, other: TargetNetwork, config: ShiftConfig) -> int:
    """Return the other model's block that is read: the configured one, or of the same depth."""
    own = decoder.shape.n_blocks
    shape = shape_of(other.net.config, config.model or decoder.binding.model)
    if config.layer is not None:
        return shape.layer(config.layer, "tasks.shift.layer")
    return round(decoder.layers[0] / max(1, own - 1) * (shape.n_blocks - 1))


def _shifted(
    data: TaskData,
    name: str,
    layer: int,
    vectors: Sequence[Sequence[np.ndarray]],
    detector: ActivationOODDetector,
    facts: dict[str, float],
) -> TaskData:
    """Give validation and test the other model's activations; training keeps its own."""
    _, validation, test = vectors
    flags = [detector.score(one).out_of_distribution for one in test]
    unfamiliar = {} if None in flags else {"unfamiliar": float(np.mean([bool(f) for f in flags]))}
    return replace(
        data,
        name=f"{data.name}_{name}",
        validation=_with_vectors(data.validation, layer, validation),
        test=_with_vectors(data.test, layer, test),
        layers=(layer,),
        facts={**facts, **unfamiliar},
    )


def _with_vectors(
    rows: Sequence[TaskRow], layer: int, vectors: Sequence[np.ndarray]
) -> tuple[TaskRow, ...]:
    return tuple(
        replace(row, vectors={layer: found}) for row, found in zip(rows, vectors, strict=True)
    )
