"""The contrastive term: which questions it is of, its exact loss and gradient, and its setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import chain
import pytest
import torch
from torch.nn import functional as F

from activation_store.read.reader import ActivationStore
from core.errors import DataError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_loss_batch
from decoder.visible_tokens import ReadLayers
from pipelines.experiment.config import Experiment
from pipelines.steps.order import steps_for
from trainers.config import TrainConfig
from trainers.data.contrast import add_contrast, find_contrasts
from trainers.data.dataset import RowDataset
from trainers.data.decoder_inputs import make_activation_inputs
from trainers.data.rows import Row, load_rows, select
from trainers.training import train

WEIGHT = 0.5
CONFIG = TrainConfig(views=("control", "system"), max_steps=2, evaluations=1, rows_per_batch=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(("control", "system"), {"train": 8, "validation": 2})
    return chain.make(tmp_path_factory.mktemp("made"), rows, swapped=("train",))


@pytest.fixture(scope="module")
def decoder(made: chain.Chain) -> Decoder:
    return chain.decoder(made, nudge=0.2)


@pytest.fixture(scope="module")
def dataset(made: chain.Chain, decoder: Decoder) -> RowDataset:
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    chosen = select(rows, split="train", views=CONFIG.views, most=None, seed=0)
    table = read_conversations(made.conversations / CONVERSATIONS_FILE)
    inputs = make_activation_inputs(
        store, layers=lambda example, epoch: ReadLayers((chain.LAYER,)), masking=True
    )
    return RowDataset(
        chosen,
        inputs,
        decoder.prompt,
        packed=decoder.can_pack,
        contrasts=find_contrasts(chosen, chosen, table, store),
    )


def test_only_hidden_controls_and_answers_that_differ_are_contrasted(dataset: RowDataset) -> None:
    for i, row in enumerate(dataset.rows):
        sample = dataset[i]
        if row.conversation.view == "control":
            assert sample.swapped is None
            continue
        # another control is of another colour; all of them are loved
        assert sample.told_apart == (True, False)
        assert sample.swapped is not None
        assert sample.swapped.n == sample.reading.n
        assert sample.swapped.first_position == sample.reading.first_position


def gradients(decoder: Decoder, loss: torch.Tensor) -> list[torch.Tensor]:
    trained = [p for p in decoder.net.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, trained))


def plain_loss(decoder: Decoder, dataset: RowDataset, indices: list[int]) -> torch.Tensor:
    """Compute the loss with a forward pass for each question and each kind of activations."""

    def answer_loss(reading: Any, turn: Any) -> torch.Tensor:
        batch = make_loss_batch(decoder.prompt, [reading], [[turn]], packed=decoder.can_pack)
        return compute_answer_losses(decoder.net, decoder.injection, batch)[0]

    terms = []
    for i in indices:
        sample = dataset[i]
        for j, turn in enumerate(sample.turns):
            own = answer_loss(sample.reading, turn)
            term = own
            if sample.swapped is not None and sample.told_apart[j]:
                term = own + WEIGHT * F.softplus(own - answer_loss(sample.swapped, turn))
            terms.append(term)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("micro_batch_tokens", [1 << 62, 1])
def test_loss_and_gradient_are_those_of_single_forward_passes(
    decoder: Decoder, dataset: RowDataset, micro_batch_tokens: int
) -> None:
    indices = list(range(6))
    views = {dataset.rows[i].conversation.view for i in indices}
    assert views == {"control", "system"}
    dataset.micro_batch_tokens = micro_batch_tokens
    parts: list[Any] = dataset.collate_micro_batches([dataset[i] for i in indices])["micro_batches"]
    asked = sum(len(part["row_of"]) - len(part.get("contrasted", ())) for part in parts)
    assert asked == 2 * len(indices)
    found = sum(
        add_contrast(
            compute_answer_losses(decoder.net, decoder.injection, part),
            part.get("contrasted"),
            WEIGHT,
        )
        for part in parts
    )
    expected = plain_loss(decoder, dataset, indices)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found / asked, expected)
    for own, plain in zip(
        gradients(decoder, found / asked), gradients(decoder, expected), strict=True
    ):
        torch.testing.assert_close(own, plain, rtol=1e-3, atol=2e-5)


def test_an_unknown_answer_counts_as_changed_but_for_yes_and_no(made: chain.Chain) -> None:
    store = ActivationStore(made.store)
    table = read_conversations(made.conversations / CONVERSATIONS_FILE)
    rows = load_rows(made.conversations, made.questions, store)
    chosen = select(rows, split="train", views=("system",), most=None, seed=0)

    def asked(row: Row, kind: Any) -> Row:
        own = replace(row.questions[0], question=f"{row.example_id}?", answer="oh", type=kind)
        return replace(row, questions=(own,))

    for kind, contrasted in (("description", True), ("yes_no", False)):
        own = [asked(chosen[0], kind)]
        if contrasted:
            assert find_contrasts(own, chosen[1:], table, store)
        else:
            with pytest.raises(DataError, match=r"Add `train` to dump.swapped"):
                find_contrasts(own, chosen[1:], table, store)


def test_training_with_the_term_gives_another_decoder(made: chain.Chain, tmp_path: Path) -> None:
    found = []
    for weight in (0.0, 1.0):
        config = CONFIG.model_copy(update={"contrastive": weight})
        inputs, out, work = made.places(tmp_path / str(weight))
        result = train(inputs, out, work, config=config, runtime=chain.RUNTIME)
        assert result.questions == 16  # contrasted ones are not counted twice
        found.append((out / "adapter_model.safetensors").read_bytes())
    assert found[0] != found[1]


def test_a_weight_needs_something_hidden() -> None:
    with pytest.raises(ValueError, match="every control is visible"):
        TrainConfig(views=("control",), contrastive=1.0)


def test_without_the_term_a_training_has_the_key_that_it_always_had() -> None:
    def settings(step: str, weight: float) -> dict[str, Any]:
        experiment = Experiment.model_validate(
            {
                "experiment": "own",
                "data": {"path": "."},
                "train": {"contrastive": weight},
                "evaluate": {"baselines": ["prior"]},
            }
        )
        steps = {own.name: own for own in steps_for(experiment)}
        return dict(steps[step].config(experiment))

    assert "contrastive" not in settings("train", 0.0)
    assert settings("train", 0.5)["contrastive"] == 0.5
    assert settings("train_prior", 0.5) == settings("train_prior", 0.0)
