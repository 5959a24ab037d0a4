"""The control effect on the tiny model, against plain forward passes."""

from __future__ import annotations

from dataclasses import replace

import chain
import numpy as np
import pytest
import tiny
import torch

from activation_store.target.load import load_model, load_tokenizer
from activation_store.target.swaps import make_swaps
from activation_store.tokens.tokens import SEGMENT_CODES, Tokens, tokenize_row
from core.records.tables import Conversation, Message
from evaluators.measure.control_effect import (
    _completion_log_likelihoods,
    measure_control_effects,
)


def rows() -> list[Conversation]:
    """Make rows of two controls, each with a reply."""
    asked = [own for own, _ in chain.rows_of(("stimulus",), {"test": 2})]
    said = [Message(role="assistant", content=f"Yes, {i}.", segment="completion") for i in "ab"]
    return [
        replace(own, view="stimulus_completion", messages=(*own.messages, reply))
        for own, reply in zip(asked, said, strict=True)
    ]


def test_it_is_how_much_likelier_a_reply_is_under_its_own_control() -> None:
    model = chain.model()
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    tokenizer = load_tokenizer(model)
    table = rows()

    def log_likelihood(row: Conversation) -> float:
        tokens = tokenize_row(tokenizer, row)
        ids = torch.tensor(tokens.ids.astype("int64"))[None]
        said = torch.tensor(tokens.segments == SEGMENT_CODES["completion"])
        chances = net(ids).logits[0, :-1].log_softmax(-1)
        each = chances.gather(1, ids[0, 1:, None])[:, 0]
        return float(each[said[1:]].sum())

    hidden = {row.example_id: tokenize_row(tokenizer, row).withheld for row in table}
    expected = {
        swap.row.example_id: log_likelihood(swap.row) - log_likelihood(swap.swapped)
        for swap in make_swaps(table, hidden, ("test",))
    }
    assert len(expected) == 2
    found = measure_control_effects(net, tokenizer, table, table, longest=10_000)
    assert found == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}


def test_a_conversation_that_is_too_long_is_neither_measured_nor_swapped_with() -> None:
    model = chain.model()
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    tokenizer = load_tokenizer(model)
    first, second = rows()
    third = replace(
        first,
        example_id="third",
        control_id="third",
        group_id="third",
        messages=(
            replace(first.messages[0], content="A long control. " * 30),
            *first.messages[1:],
        ),
    )
    table = [first, second, third]
    sizes = [len(tokenize_row(tokenizer, row).ids) for row in table]
    assert max(sizes[:2]) < sizes[2]
    short = measure_control_effects(net, tokenizer, table[:2], table[:2], longest=sizes[2] - 1)
    assert len(short) == 2
    found = measure_control_effects(net, tokenizer, table, table, longest=sizes[2] - 1)
    assert found == short


def test_rows_on_both_sides_of_a_switch_of_positions_are_what_they_are_alone() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [7.0] * 4, "rope_theta": 1e4}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 40, **factors}
    net = tiny.model(family="phi3", rope_parameters=rope, original_max_position_embeddings=40)
    ids = np.arange(5, 200, dtype=np.int32)
    said = np.full(195, SEGMENT_CODES["completion"], np.uint8)
    rows = {
        (str(n), ""): Tokens(ids=ids[:n], segments=said[:n], withheld=0)
        for n in (30, 70, 38, 190, 41)
    }
    together = _completion_log_likelihoods(net, rows)
    for key, tokens in rows.items():
        alone = _completion_log_likelihoods(net, {key: tokens})
        assert together[key] == pytest.approx(alone[key], abs=1e-3)
