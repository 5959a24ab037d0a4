"""Answer losses of rows under one condition."""

from __future__ import annotations

import chain
import pytest

from activation_store.read.reader import ActivationStore
from decoder.batch import make_batch
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.reading import Reading
from evaluators.measure.losses import compute_question_losses
from trainers.data.rows import Row, load_rows, read_row, tokenize_questions

Measured = tuple[Decoder, list[Row], list[Reading]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    rows = chain.rows_of(("control", "stimulus"), {"test": 6})
    rows[0][1].pop()  # one question, where the others have two
    made = chain.make(tmp_path_factory.mktemp("losses"), rows)
    store = ActivationStore(made.store)
    found = load_rows(made.conversations, made.questions, store)
    readings = [read_row(store, row, chain.LAYER, masking=True) for row in found]
    return chain.decoder(made, nudge=0.2), found, readings


def test_losses_are_those_of_one_row_at_a_time(measured: Measured) -> None:
    decoder, rows, readings = measured
    found = compute_question_losses(decoder, rows, readings, batch=5)
    for row, reading, losses in zip(rows, readings, found, strict=True):
        batch = make_batch(decoder.prompt, [reading], [tokenize_questions(decoder.prompt, row)])
        alone = compute_answer_losses(decoder.net, decoder.injection, batch).tolist()
        assert losses == pytest.approx(alone, abs=1e-4)
    assert [len(losses) for losses in found] == [len(row.questions) for row in rows]


def test_losses_do_not_depend_on_the_order_of_the_rows(measured: Measured) -> None:
    decoder, rows, readings = measured
    there = compute_question_losses(decoder, rows, readings, batch=4)
    back = compute_question_losses(decoder, rows[::-1], readings[::-1], batch=4)
    for a, b in zip(there, back[::-1], strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_losses_depend_on_the_activations(measured: Measured) -> None:
    decoder, rows, readings = measured
    empty = [Reading(None, r.n, r.first_position) for r in readings]
    assert compute_question_losses(decoder, rows, empty) != compute_question_losses(
        decoder, rows, readings
    )
