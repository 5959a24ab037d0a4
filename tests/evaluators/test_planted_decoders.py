"""Decoders of which is known what they read, through dump, swapped rows and evaluation.

The loss of each is planted as a function of what a condition hands to the decoder; everything else
(the target's runs, the swapped rows, the conditions, the panel) is real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import chain
import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.write.dump import dump
from core.records.tables import Conversation, Question, control_id, example_id
from decoder.model import Decoder
from decoder.reading import Reading
from evaluators.config import EvaluateConfig
from evaluators.evaluation import TrainedDecoders, evaluate
from evaluators.measure.metrics import SliceMetrics
from trainers.data.rows import Row

CONTROLS = 12
CONFIG = EvaluateConfig(
    splits=("test",),
    views=("system",),
    conditions=("right", "swapped", "shifted_positions", "other"),
    answers=0,
    identification=0,
    control_effect=False,
    bootstrap=200,
)
Plant = Callable[[Reading, Reading], float]
"""Returns the loss of a reading, given the row's own."""


def rows() -> list[tuple[Conversation, list[Question]]]:
    """Rows of one kind with controls of different lengths, and a stimulus of its own each."""
    found = []
    for number in range(CONTROLS):
        conversation, asked = chain.row(number, split="test", view="system")
        control = f"You love {'x' * (number + 1)}"
        said = chain.messages("system", control, f"Say {chr(ord('a') + number)}")
        own = example_id(control, "system", said)
        conversation = replace(
            conversation,
            example_id=own,
            control_id=control_id("persona", control),
            label=control,
            messages=said,
        )
        found.append((conversation, [replace(question, example_id=own) for question in asked]))
    return found


def save_target(folder: Path, *, carries: bool) -> ModelFiles:
    """Save a tiny target; one that carries nothing has no attention up to the read layer."""
    tiny.save(folder)
    if not carries:
        net = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for block in net.model.layers[: chain.LAYER + 1]:
                block.self_attn.o_proj.weight.zero_()
        net.save_pretrained(folder)
    return resolve_model(str(folder))


def measure(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    *,
    carries: bool,
    live: bool = False,
) -> SliceMetrics:
    torch.set_num_threads(1)
    tables, store = folder / "tables", folder / "store"
    tables.mkdir()
    store.mkdir()
    chain.write_tables(tables, rows())
    model = save_target(folder / "model", carries=carries)
    dump(tables, store, config=chain.CAPTURE, model=model, runtime=chain.RUNTIME)
    made = chain.Chain(conversations=tables, questions=tables, store=store, model=model)
    chain.decoder(made).save(folder / "decoder")
    opened = ActivationStore(store)

    def losses(
        decoder: Decoder, rows: Sequence[Row], readings: Sequence[Reading], **more: Any
    ) -> list[list[float]]:
        found = []
        for row, reading in zip(rows, readings, strict=True):
            withheld = opened.place(row.example_id).withheld
            vectors = opened.read(row.example_id, chain.LAYER)[withheld:]
            own = Reading(vectors, len(vectors), withheld)
            found.append([plant(reading, own)] * len(row.questions))
        return found

    monkeypatch.setattr("evaluators.slice_evaluator.compute_question_losses", losses)
    changes = {"store": None, "capture": chain.CAPTURE} if live else {}
    inputs, out, work = made.places(folder / "e", **changes)
    found = evaluate(
        inputs,
        TrainedDecoders(decoder=folder / "decoder"),
        out,
        work,
        config=CONFIG,
        runtime=chain.RUNTIME,
    )
    return found.reading["test"]["system"]


def reads_activations(reading: Reading, own: Reading) -> float:
    """Lose nothing given the row's own activations, wherever they stand."""
    one, other = reading.array, own.array
    assert one is not None
    assert other is not None
    return float(one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=1e-4))


def reads_the_offset(reading: Reading, own: Reading) -> float:
    """Lose nothing where activations stand as far from the beginning as the row's own."""
    return float(reading.first_position != own.first_position)


def shown(found: SliceMetrics) -> dict[str, float | None]:
    named = ("hidden_gain", "position_effect", "grounded_gain")
    values = {name: getattr(found, name) for name in named}
    for value in values.values():
        assert value.n == CONTROLS
        assert value.low <= value.estimate <= value.high
    return {name: value.estimate for name, value in values.items()}


def test_what_is_read_of_visible_text_is_no_hidden_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In activations that carry no control there is nothing but visible text."""
    found = measure(tmp_path, monkeypatch, reads_activations, carries=False)
    assert shown(found) == {"hidden_gain": 0, "position_effect": 0, "grounded_gain": 1}


@pytest.mark.parametrize("live", [False, True])
def test_what_is_read_of_a_hidden_control_is_all_hidden_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    found = measure(tmp_path, monkeypatch, reads_activations, carries=True, live=live)
    assert shown(found) == {"hidden_gain": 1, "position_effect": 0, "grounded_gain": 1}


def test_what_is_read_of_positions_is_no_hidden_gain_and_is_exposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(tmp_path, monkeypatch, reads_the_offset, carries=True)
    assert shown(found) == {"hidden_gain": 0, "position_effect": 1, "grounded_gain": 1}
