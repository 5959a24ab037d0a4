"""What the trained baselines are given: another control's activations, or the control's words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import chain
import numpy as np
import pytest

from activation_store.read.reader import ActivationStore
from core.errors import DataError
from core.records.tables import View
from decoder.batch import make_batch
from decoder.config import DecoderConfig, LoraSettings
from decoder.packed import make_packed_batch
from decoder.visible_tokens import ReadLayers
from trainers.config import TrainConfig, Variant
from trainers.data.dataset import RowDataset
from trainers.data.decoder_inputs import (
    draw_donors,
    make_activation_inputs,
    make_decoder_inputs,
    make_text_reading,
    make_visible_text_reading,
)
from trainers.data.rows import Row, load_rows, read_row, tokenize_questions
from trainers.loop.trainer import compute_validation_loss
from trainers.training import train

VIEWS: tuple[View, ...] = ("control", "system")
PLACE: Any = {"layers": lambda example, epoch: ReadLayers((chain.LAYER,)), "masking": True}
"""What is read of a row."""


def row(number: int, *, kind: str = "persona", view: View = "control", group: int = -1) -> Row:
    conversation, _ = chain.row(number, kind=kind, view=view)
    object.__setattr__(conversation, "group_id", f"group {number if group < 0 else group}")
    return Row(conversation, ())


ROWS = [row(i, kind="goal" if i % 4 == 3 else "persona", view=v) for i in range(24) for v in VIEWS]


def test_each_row_is_given_one_of_its_view_and_kind_and_of_another_group() -> None:
    found = draw_donors(ROWS, seed=0)
    assert found.keys() == {one.example_id for one in ROWS}
    for one in ROWS:
        mine, theirs = one.conversation, found[one.example_id].conversation
        assert (mine.view, mine.kind) == (theirs.view, theirs.kind)
        assert mine.group_id != theirs.group_id


def test_activations_are_given_as_often_as_each_other_and_by_seed() -> None:
    def pairs(seed: int) -> dict[str, str]:
        return {mine: other.example_id for mine, other in draw_donors(ROWS, seed=seed).items()}

    assert set(Counter(pairs(0).values()).values()) == {1}
    assert pairs(0) == pairs(0) != pairs(1)
    assert draw_donors(ROWS[::-1], seed=0).keys() == pairs(0).keys()


def test_each_pass_draws_anew_and_as_evenly() -> None:
    def pairs(epoch: int) -> dict[str, str]:
        found = draw_donors(ROWS, seed=0, epoch=epoch)
        return {mine: other.example_id for mine, other in found.items()}

    assert pairs(0) == {mine: other.example_id for mine, other in draw_donors(ROWS, seed=0).items()}
    assert pairs(1) == pairs(1)
    for epoch in (1, 2):
        assert set(Counter(pairs(epoch).values()).values()) == {1}
        same = [mine for mine, other in pairs(epoch).items() if other == pairs(epoch - 1)[mine]]
        assert len(same) < len(ROWS) / 4


def test_rows_of_one_group_are_passed_over() -> None:
    rows = [row(0, group=0), row(1, group=0), row(2, group=0), row(3, group=1)]
    found = draw_donors(rows, seed=0)
    assert {found[one.example_id].conversation.group_id for one in rows[:3]} == {"group 1"}


def test_a_control_that_is_alone_of_its_kind_is_given_any_other() -> None:
    rows = [row(0), row(1), row(2, kind="extractive")]
    assert draw_donors(rows, seed=0)[rows[2].example_id].conversation.kind == "persona"


def test_a_split_with_nobody_else_is_refused() -> None:
    with pytest.raises(DataError, match="view control in split train are all of one group"):
        draw_donors([row(0, group=5), row(1, group=5)], seed=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    return chain.make(tmp_path_factory.mktemp("chain"))


def rows_and_store(made: chain.Chain) -> tuple[list[Row], ActivationStore]:
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    return [one for one in rows if one.conversation.split == "train"], store


@pytest.mark.parametrize("variant", ["own", "prior", "text"])
def test_a_dataset_gives_what_its_variant_says(made: chain.Chain, variant: Variant) -> None:
    rows, store = rows_and_store(made)
    prompt = chain.decoder(made).prompt
    read = make_decoder_inputs(variant, rows, store, prompt, **PLACE, seed=3)
    data = RowDataset(rows, read, prompt)
    partners = draw_donors(rows, seed=3)
    for i, row_ in enumerate(rows):
        reading, turns = data[i][:2]
        assert data.lengths[i] == reading.n + sum(len(turn.ids) for turn in turns)
        if variant == "text":
            assert reading.vectors is None
            assert reading.ids is not None
            text = chain.decoder(made).tokenizer.decode(reading.ids)
            assert text == row_.conversation.control
            break
        source = row_ if variant == "own" else partners[row_.example_id]
        expected = read_row(store, source, chain.LAYER, masking=True).vectors
        assert reading.vectors is not None
        np.testing.assert_array_equal(reading.vectors, expected)


def test_a_row_of_a_later_epoch_is_given_the_donor_of_that_epoch(made: chain.Chain) -> None:
    rows, store = rows_and_store(made)
    prompt = chain.decoder(made).prompt
    read = make_decoder_inputs("prior", rows, store, prompt, **PLACE, seed=3)
    data = RowDataset(rows, read, prompt)
    partners = draw_donors(rows, seed=3, epoch=2)
    lengths = data.lengths_in_epoch(2)
    for i, row_ in enumerate(rows):
        reading, turns = data[i, 2][:2]
        expected = read_row(store, partners[row_.example_id], chain.LAYER, masking=True).vectors
        assert reading.vectors is not None
        np.testing.assert_array_equal(reading.vectors, expected)
        assert lengths[i] == reading.n + sum(len(turn.ids) for turn in turns)
    assert data.lengths == data.lengths_in_epoch(0)


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_stands_where_the_placeholders_would_at_plain_positions(
    made: chain.Chain, packed: bool
) -> None:
    rows, _ = rows_and_store(made)
    prompt = chain.decoder(made).prompt
    reading = make_text_reading(prompt, rows[0])
    turns = [tokenize_questions(prompt, rows[0])]
    name = "packed" if packed else "prefix"
    batch = (make_packed_batch if packed else make_batch)(prompt, [reading], turns)
    ids, positions = batch[f"{name}_ids"][0], batch[f"{name}_positions"][0]  # type: ignore[literal-required]
    places = prompt.prefix(reading).places.tolist()
    assert reading.ids is not None
    assert ids[places].tolist() == reading.ids.tolist()
    assert positions[: places[-1] + 1].tolist() == list(range(places[-1] + 1))
    assert "vectors" not in batch


@pytest.mark.parametrize("variant", ["prior", "visible_text", "text"])
def test_a_baseline_is_trained_and_validated_on_what_it_is_given(
    made: chain.Chain, tmp_path: Path, variant: Variant
) -> None:
    config = TrainConfig(
        decoder=DecoderConfig(normalisation="none"),
        lora=LoraSettings(rank=4),
        views=("control",),
        max_steps=1,
        evaluations=1,
        seed=3,
    )
    found = train(*made.places(tmp_path), config=config, runtime=chain.RUNTIME, variant=variant)
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    held = [one for one in rows if one.conversation.split == "validation"]
    decoder = chain.decoder(made)
    read = make_decoder_inputs(variant, held, store, decoder.prompt, **PLACE, seed=3)
    losses = [
        compute_validation_loss(decoder, RowDataset(held, one, decoder.prompt))
        for one in (read, make_activation_inputs(store, **PLACE))
    ]
    assert found.untrained_validation == pytest.approx(losses[0], rel=1e-4)
    assert found.untrained_validation != pytest.approx(losses[1], rel=1e-4)
    assert found.validation != found.untrained_validation


def test_the_prior_of_several_epochs_killed_in_the_last_ends_with_the_same_bytes(
    made: chain.Chain, tmp_path: Path
) -> None:
    config = TrainConfig(
        lora=LoraSettings(rank=4), views=("control",), epochs=3, evaluations=3, seed=3
    )
    rest: Any = {"config": config, "runtime": chain.RUNTIME}

    train(*made.places(tmp_path / "whole"), **rest, variant="prior")
    chain.killed(
        train, 5, *made.places(tmp_path / "killed"), **rest, variant="prior"
    )  # 2 steps an epoch
    assert (tmp_path / "killed" / "work" / "checkpoint-4").is_dir()
    train(*made.places(tmp_path / "killed"), **rest, variant="prior")
    for path in (tmp_path / "whole" / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "killed" / "out" / path.name).read_bytes()


def test_visible_text_is_the_visible_tokens_at_the_positions_of_their_activations(
    tmp_path: Path,
) -> None:
    made = chain.make(tmp_path, chain.rows_of(("system",)))
    store = ActivationStore(made.store)
    row = load_rows(made.conversations, made.questions, store)[0]
    decoder = chain.decoder(made)
    own = read_row(store, row, chain.LAYER, masking=True)
    text = make_visible_text_reading(store, row, masking=True)
    assert text.vectors is None
    assert text.ids is not None
    assert decoder.tokenizer.decode(text.ids).count(row.conversation.messages[-1].content) == 1
    assert row.conversation.control not in decoder.tokenizer.decode(text.ids)
    one, other = decoder.prompt.prefix(own), decoder.prompt.prefix(text)
    assert one.at.tolist() == other.at.tolist()
    assert other.ids[other.places].tolist() == text.ids.tolist()
