"""Plain texts, and decoders of the last token of a row: one rule for training and asking."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import chain
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from core.errors import DataError
from core.records.tables import PLAIN_TEXT, Conversation, Message, Question, Split, example_id
from decoder.config import DecoderConfig
from decoder.model import Decoder
from decoder.sources.target_run import capture
from decoder.visible_tokens import ReadLayers
from pipelines.asking.reader import Reader, make_prompt
from trainers.config import TrainConfig
from trainers.data.decoder_inputs import make_visible_text_reading
from trainers.data.rows import count_visible_tokens, load_rows, read_row
from trainers.training import train

LAYERS = ReadLayers((chain.LAYER,))


def text_row(number: int, split: Split) -> tuple[Conversation, list[Question]]:
    row, asked = chain.row(number, split=split)
    said = (Message(role=PLAIN_TEXT, content=f"a text of {row.category}", segment="control"),)
    own = example_id(row.label, row.view, said)
    return replace(row, messages=said, example_id=own), [
        replace(question, example_id=own) for question in asked
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    splits: list[Split] = ["train", "train", "train", "train", "validation", "validation"]
    rows = [text_row(i, split) for i, split in enumerate(splits)]
    rows += [chain.row(8 + i, split="train", view="system") for i in range(2)]
    return chain.make(tmp_path_factory.mktemp("texts"), rows)


def test_a_plain_text_is_read_without_the_chat_template(made: chain.Chain) -> None:
    store = made.inputs().open_activations(chain.RUNTIME)
    rows = load_rows(made.conversations, made.questions, store)
    row = next(one.conversation for one in rows if one.conversation.messages[0].role == PLAIN_TEXT)
    decoder = chain.decoder(made)
    ids = decoder.tokenizer(row.control, add_special_tokens=False)["input_ids"]
    assert store.tokens(row.example_id).tolist() == ids
    with decoder.without_adapter(), torch.no_grad():
        states = decoder.net(torch.tensor([ids]), output_hidden_states=True).hidden_states
    (stored,) = store.read_layers(row.example_id, [chain.LAYER])
    np.testing.assert_allclose(stored, states[chain.LAYER + 1][0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_plain_text_stands_alone(made: chain.Chain) -> None:
    said = Message(role=PLAIN_TEXT, content="a text", segment="control")
    decoder = chain.decoder(made)
    with pytest.raises(DataError, match="expected it alone"):
        capture(decoder, [[said, said]], [chain.LAYER])
    with pytest.raises(DataError, match="holds the control token"):
        capture(decoder, [[replace(said, content="a <|im_end|>")]], [chain.LAYER])


def test_the_last_token_alone_is_read_at_its_own_position(made: chain.Chain) -> None:
    store = made.inputs().open_activations(chain.RUNTIME)
    store.last_tokens = 1
    for row in load_rows(made.conversations, made.questions, pickle.loads(pickle.dumps(store))):
        (stored,) = store.read_layers(row.example_id, [chain.LAYER])
        reading = read_row(store, row, LAYERS, masking=True)
        np.testing.assert_array_equal(reading.array, stored[-1:])
        assert (reading.n, reading.first_position) == (1, len(stored) - 1)
        assert count_visible_tokens(store, row, masking=True) == 1
        words = make_visible_text_reading(store, row, masking=True)
        assert words.ids is not None
        assert words.ids.tolist() == store.tokens(row.example_id)[-1:].tolist()


def test_no_more_is_read_than_masking_leaves(made: chain.Chain) -> None:
    store = made.inputs().open_activations(chain.RUNTIME)
    rows = load_rows(made.conversations, made.questions, store)
    masked = next(row for row in rows if row.conversation.view == "system")
    visible = count_visible_tokens(store, masked, masking=True)
    store.last_tokens = visible + 1
    assert count_visible_tokens(store, masked, masking=True) == visible
    assert count_visible_tokens(store, masked, masking=False) == visible + 1


def test_training_and_asking_read_the_same_tokens(made: chain.Chain, tmp_path: Path) -> None:
    inputs, out, work = made.places(tmp_path)
    config = TrainConfig.model_validate(
        {
            "decoder": {"tokens": "last:1", "normalisation": "standardise"},
            "views": ["control"],
            "max_steps": 1,
            "evaluations": 1,
        }
    )
    train(inputs, out, work, config=config, runtime=chain.RUNTIME)
    decoder = Decoder.load(out, made.model, "float32", chain.RUNTIME)
    assert decoder.config.last_tokens == 1
    said = [{"role": PLAIN_TEXT, "content": "a text of red"}]
    reader = Reader("toy", decoder)
    asked = reader.ask_all(said, ["Which?"], max_tokens=2)
    assert (asked.activations, asked.withheld) == (1, 0)
    (captured,) = reader.capture([make_prompt(said, ["Which?"]).messages], [chain.LAYER])
    seen = captured.visible("control", LAYERS, masking=True)
    assert seen is not None
    np.testing.assert_array_equal(seen.array, captured.vectors[chain.LAYER][-1:])
    assert reader.ask_all(said, ["Which?"], tokens="all", max_tokens=2).activations > 1


@pytest.mark.parametrize("tokens", ["last", "last:0", "match:x", "all"])
def test_other_choices_are_for_asking(tokens: str) -> None:
    with pytest.raises(ValidationError):
        DecoderConfig(tokens=tokens)
