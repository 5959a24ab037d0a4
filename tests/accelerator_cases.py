"""Capture, training, evaluation, answers and steering on a made-up accelerator (fake_device.py).

No operation mixes devices, and the host waits for the device where a test names it, nowhere else.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chain
import decoders
import numpy as np
import pytest
import stores
import torch
from fake_device import FakeDevice, fake_device, move, spread
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
)
from transformers import TrainingArguments

from activation_store.layout.plan_files import write_plan
from activation_store.target.capture import Capture
from activation_store.target.host_copy import HostCopier
from activation_store.target.load import load_model
from activation_store.target.served_replies import count_chosen
from activation_store.tokens.tokens import tokenize_row
from activation_store.write.capture_shards import capture_shards
from activation_store.write.prepared import prepare_dump
from decoder import asking, packed
from decoder.asking import generate_answers
from decoder.config import LoraSettings
from decoder.forward import attention_mask
from decoder.model import Decoder
from decoder.normalisation import ActivationStatistics
from decoder.patched_text import PLACE, PatchedText, continue_texts, score_continuations
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.sources.live import LiveActivations
from decoder.sources.target_run import TargetNetwork
from decoder.steering import hooks, shifts
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.gradient import (
    WeightedTurn,
    _losses,
    answer_loss,
    compute_answer_gradient,
)
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt
from decoder.steering.replies import Steering, score_replies, steered_target
from decoder.steering.shifts import compute_common_shift
from decoder.visible_tokens import ReadLayers
from evaluators.measure.control_effect import _completion_log_likelihoods
from evaluators.tasks.linear_map import read_texts
from trainers.config import TrainConfig
from trainers.data.dataset import MicroBatches, RowDataset
from trainers.data.decoder_inputs import DecoderInputs, make_activation_inputs
from trainers.data.normalisation import measure_placeholder_length
from trainers.data.rows import Row
from trainers.distributed.processes import DistributedContext
from trainers.loop.trainer import (
    DecoderTrainer,
    compute_validation_loss,
    make_training_arguments,
)
from trainers.steering import language_loss, weights
from trainers.steering.adapter import remove_steering_adapter
from trainers.steering.config import WeightSteeringConfig
from trainers.steering.language_loss import compute_language_loss
from trainers.steering.reply_tuning import train_reply_adapter
from trainers.steering.weights import train_steering_adapter


def prove(*families: str) -> list[Any]:
    """Leave families to `make prove`."""
    return [pytest.param(family, marks=pytest.mark.prove) for family in families]


FAMILIES = ["llama", "gemma3", *prove("qwen3", "gpt_neox")]
"""With full attention and with windows; two more in `make prove`."""
STEERED = ["llama", *prove("gemma3", "qwen3", "gpt_neox")]
"""Of what differs by family in what was tested already: the other three in `make prove`."""
WINDOWS = ("gemma3", "mistral")
LAYERS = (0, 1)
BLOCKS = 2
ADAPTED = LoraSettings(rank=4, targets=("q_proj", "down_proj", "query_key_value", "dense_4h_to_h"))
"""One linear layer of the attention and one behind it: an operation on the device takes long."""
few = pytest.mark.parametrize("family", STEERED, indirect=True)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(family: str) -> Iterator[FakeDevice]:
    # transformers looks at the padding of models with windows at each pass: the one exception
    with fake_device(looks_at_padding=family in WINDOWS) as made:
        yield made


def decoder_on(family: str, **config: Any) -> Decoder:
    """Return a decoder on the device, the same for all tests that want it so."""
    return _decoder_on(family, tuple(config.items()))


@functools.cache
def _decoder_on(family: str, config: tuple[tuple[str, Any], ...]) -> Decoder:
    made = make(family, **dict(config))
    move(made.net)
    return made


def make(family: str = "llama", **config: Any) -> Decoder:
    """Make a decoder on the CPU."""
    return decoders.make(family, blocks=BLOCKS, lora=ADAPTED, **config)


def readings(decoder: Decoder, layer: int | None = None) -> list[Reading]:
    layers = decoder.select_layers(layer)
    named = layers.layers if layers.named else ()
    return [decoders.reading(n, 3 * n, seed=n, layers=named) for n in (4, 9)]


def rows_of(decoder: Decoder, inputs: Any = None) -> RowDataset:
    """Make a data set of two rows with two questions each."""
    given = dict(enumerate(readings(decoder)))
    made = [chain.row(number) for number in given]
    rows = [Row(conversation, tuple(asked)) for conversation, asked in made]
    numbers = {row.example_id: number for number, row in enumerate(rows)}
    own = inputs or DecoderInputs(
        lambda row, epoch: given[numbers[row.example_id]],
        lambda row, epoch: given[numbers[row.example_id]].size,
    )
    packed = decoder.can_pack
    return RowDataset(rows, own, decoder.prompt, packed=packed, micro_batch_tokens=100)


def trainer_of(
    decoder: Decoder,
    rows: RowDataset,
    device: FakeDevice,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> DecoderTrainer:
    """Make the trainer, which then stands on the device."""
    alone = DistributedContext(world_size=1, rank=0, device=torch.device("cpu"))
    config = TrainConfig()
    args = make_training_arguments(config, folder, steps=1, distributed=alone, report_to=())
    monkeypatch.setattr(TrainingArguments, "device", device.device)
    monkeypatch.setattr(TrainingArguments, "place_model_on_device", False)
    decoder.net.train()
    for name, weight in decoder.net.named_parameters():
        weight.requires_grad_("lora_" in name)
    made = DecoderTrainer(decoder, rows, rows, config=config, distributed=alone, args=args)
    made.current_gradient_accumulation_steps = 1  # set by its own loop
    return made


def take_step(trainer: DecoderTrainer, decoder: Decoder, rows: RowDataset) -> None:
    """Run forward, backward, clipping and the optimiser on one batch of several micro-batches."""
    batch: MicroBatches = rows.collate_micro_batches([rows[i] for i in range(len(rows))])
    assert len(batch["micro_batches"]) > 1
    weights = [weight for weight in decoder.net.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights)
    loss = trainer.training_step(decoder.net, dict(batch))
    assert loss.device == decoder.device
    assert all(weight.grad is not None for weight in weights)
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()
    optimiser.zero_grad()
    decoder.net.eval().requires_grad_(False)  # as other tests want it


def test_a_dump_reads_each_batch_once_a_layer(
    family: str, device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a busy disk takes longer than all else
    model = decoders.model(family, blocks=BLOCKS)
    rows = [stores.conversation(i, "stimulus") for i in range(3)]
    config = stores.CAPTURE.model_copy(update={"batch_tokens": 200, "layers": LAYERS})
    prepared = prepare_dump(stores.table(tmp_path / "rows", rows), config, model)
    plan = prepared.make_plan()
    write_plan(tmp_path, plan, prepared.tokens)
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    move(net)
    capture_shards(plan, range(plan.n_shards), out=tmp_path, tokens=prepared.tokens, net=net)
    batches = sum(len(list(plan.batches(shard))) for shard in range(plan.n_shards))
    assert batches > 1
    assert device.reads == {"HostCopier.start.<locals>.<dictcomp>": batches * len(plan.layers)}


@pytest.mark.parametrize("injection", ["replace", "add"])
def test_a_training_step_reads_nothing(
    family: str,
    device: FakeDevice,
    injection: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = decoder_on(family, injection=injection)
    rows = rows_of(decoder)
    take_step(trainer_of(decoder, rows, device, tmp_path, monkeypatch), decoder, rows)
    assert not device.reads


@few
def test_a_step_of_rows_with_a_shared_prefix_reads_nothing(
    device: FakeDevice, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_on(family, read_layers=LAYERS)
    monkeypatch.setattr(decoder, "can_pack", False)
    rows = rows_of(decoder)
    take_step(trainer_of(decoder, rows, device, tmp_path, monkeypatch), decoder, rows)
    assert not device.reads


@few
def test_several_layers_together_and_normalised_read_nothing(
    device: FakeDevice, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"read_layers": LAYERS, "combine": "concatenated", "normalisation": "standardise"}
    decoder = decoder_on(family, **config)
    wide = np.ones((2, 32), np.float32)
    decoder.use_statistics(ActivationStatistics(mean=wide, deviation=wide, length=1.0))
    rows = rows_of(decoder)
    take_step(trainer_of(decoder, rows, device, tmp_path, monkeypatch), decoder, rows)
    assert not device.reads


@few
def test_a_live_step_reads_the_targets_activations_alone(
    device: FakeDevice, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_on(family)
    conversations = [chain.row(number)[0] for number in range(2)]
    settings = chain.CAPTURE.model_copy(update={"swapped": (), "layers": LAYERS[1:]})
    source = LiveActivations(decoders.model(family, blocks=BLOCKS), conversations, settings)
    source.attach_decoder(decoder)
    inputs = make_activation_inputs(
        source, layers=lambda example, epoch: ReadLayers(LAYERS[1:]), masking=False
    )
    rows = rows_of(decoder, inputs)
    take_step(trainer_of(decoder, rows, device, tmp_path, monkeypatch), decoder, rows)
    assert device.reads == {"to_stored": 2}


def test_losses_are_read_once_behind_all_batches(device: FakeDevice, family: str) -> None:
    decoder = decoder_on(family)
    turns = [[decoder.prompt.turn("Who?", "Me."), decoder.prompt.turn("Why?", "So.")]] * 2
    found = compute_turn_losses(decoder, readings(decoder), turns, batch=1)
    assert [len(own) for own in found] == [2, 2]
    assert device.reads == {"compute_turn_losses": 1}
    compute_validation_loss(decoder, rows_of(decoder))
    assert device.reads == {"compute_turn_losses": 1, "compute_validation_loss": 1}


def test_answers_are_looked_at_every_few_tokens(
    device: FakeDevice, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_LOOK", 2)
    decoder = decoder_on(family)
    found = generate_answers(decoder, readings(decoder), ["Who?"] * 2, max_tokens=4)
    assert len(found) == 2
    assert device.reads == {"_find_unfinished": 2, "continue_turns": 2}


@few
def test_texts_with_activations_are_continued_and_scored(
    device: FakeDevice, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_LOOK", 2)
    decoder = decoder_on(family)
    texts = [
        PatchedText.make(decoder.tokenizer, f"of {PLACE} is", np.ones(32, np.float32), repeats=n)
        for n in (1, 3)
    ]
    at = decoder.injection_at(0, "replace")
    continue_texts(decoder, at, texts, max_tokens=2)
    assert device.reads == {"_find_unfinished": 1, "continue_turns": 2}
    score_continuations(decoder, at, texts, [[" a", " bc"]] * 2)
    assert device.reads["score_continuations"] == 1


def test_the_control_effect_is_read_once_a_batch(device: FakeDevice, family: str) -> None:
    decoder = decoder_on(family)
    tokens = [
        tokenize_row(decoder.tokenizer, stores.conversation(i, "stimulus_completion"))
        for i in range(2)
    ]
    found = _completion_log_likelihoods(
        decoder.net, {("a", str(i)): t for i, t in enumerate(tokens)}
    )
    assert len(found) == 2
    assert device.reads == {"_completion_log_likelihoods": 1}


@few
def test_a_steering_gradient_is_read_once_and_its_loss_not_at_all(
    device: FakeDevice, family: str
) -> None:
    decoder = decoder_on(family)
    asked = [WeightedTurn(decoder.prompt.turn("Who?", "Me."), 0.5)]
    rows = readings(decoder)
    assert len(compute_answer_gradient(decoder, rows, [asked] * 2).gradients) == 2
    assert device.reads == {"compute_answer_gradient": 1}
    net = decoder.net.get_base_model()
    kept = Capture(net, LAYERS[1:], gradients=True)([np.arange(5), np.arange(4)])[LAYERS[1]]
    leaf = kept.detach().clone().requires_grad_()
    placed = [Reading(leaf[row, :n], n, 0) for row, n in enumerate((5, 4))]
    torch.autograd.backward(answer_loss(decoder, placed, [asked] * 2))
    assert leaf.grad is not None
    assert device.reads == {"compute_answer_gradient": 1}


def objective(decoder: Decoder) -> SteeringObjective:
    turn = WeightedTurn(decoder.prompt.turn("Who?", "Me."), 1.0)
    return SteeringObjective((), (), ((turn,),))


def steered_prompts() -> list[SteeringPrompt]:
    return [SteeringPrompt((), np.arange(n), 1) for n in (6, 4)]


@few
@pytest.mark.parametrize("new_tokens", ["mean", "gradient"])
def test_a_steered_pass_is_read_at_the_end_of_its_descent(
    device: FakeDevice, family: str, new_tokens: str
) -> None:
    decoder = decoder_on(family)
    config = ActivationSteeringConfig.model_validate({"new_tokens": new_tokens, "steps": 2})
    steering = Steering(objective=objective(decoder), config=config)
    assert len(score_replies(decoder, steered_prompts(), [(5, 6, 7), (8,)], steering)) == 2
    # of new tokens, each of which takes steps of its own, nothing is read but the end's score
    assert device.reads == {"Descent.losses": 1, "Descent.limited": 1, "score_replies": 1}


@few
def test_a_vector_is_read_at_the_end_of_its_descent(device: FakeDevice, family: str) -> None:
    decoder = decoder_on(family)
    config = ActivationSteeringConfig.model_validate({"vector_steps": 2, "smoothing": 0.1})
    compute_common_shift(decoder, steered_prompts(), objective(decoder), config)
    assert device.reads == {"Descent.losses": 1, "compute_common_shift": 1}


TRAINED = WeightSteeringConfig(lora=ADAPTED, steps=2, evaluate_every=1, reply_tokens=0)


@few
def test_steering_by_weights_is_read_at_its_checks_and_its_end(
    device: FakeDevice, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replied(own: Decoder, asked: Any, to: Any, tokens: int) -> list[SteeringPrompt]:
        return [SteeringPrompt((), np.arange(len(one.ids) + tokens), 1) for one in asked]

    # replies are written by transformers' own generate, which waits at each token
    monkeypatch.setattr(weights, "follow_by_replies", replied)
    decoder = decoder_on(family)
    prompts = steered_prompts()
    config = TRAINED.model_copy(update={"kl_weight": 0.5})
    try:
        train_steering_adapter(
            decoder, prompts, prompts, objective(decoder), config, unrelated=prompts[:1]
        )
        assert device.reads == {"SteeringRows.mean_loss": 3, "train_adapter": 2}
    finally:
        remove_steering_adapter(decoder)


@few
def test_training_on_replies_is_read_at_its_checks_and_its_end(
    device: FakeDevice, family: str
) -> None:
    decoder = decoder_on(family)
    rows = [(prompt, (5, 6)) for prompt in steered_prompts()]
    try:
        train_reply_adapter(decoder, rows, rows, TRAINED, name="sft")
        checks = "train_reply_adapter.<locals>.check"
        assert device.reads == {checks: 3, "train_adapter": 2}
    finally:
        remove_steering_adapter(decoder, "sft")


@few
def test_passes_without_a_mask_are_read_at_their_end(device: FakeDevice, family: str) -> None:
    decoder = decoder_on(family)
    measure_placeholder_length(decoder)
    count_chosen(decoder.net.get_base_model(), [3, 4], [5, 6])
    assert device.reads == {"measure_placeholder_length": 1, "count_chosen": 1}


def test_the_gradient_of_a_block_on_another_device_goes_back_there() -> None:
    with fake_device():
        decoder = decoder_on("llama")
        vectors = torch.zeros(5, 32).to(torch.device(decoder.device.type, 1)).requires_grad_()
        loss = answer_loss(decoder, [Reading(vectors, 5, 0)], [objective(decoder).all_turns])
        assert loss.grad_fn is not None
        (gradient,) = loss.grad_fn.saved_tensors  # type: ignore[attr-defined]
        assert (loss.device.index, gradient.device.index) == (0, 1)


@pytest.mark.parametrize("write_layer", [1, pytest.param(0, marks=pytest.mark.prove)])
def test_a_model_spread_over_two_devices_is_read_scored_and_asked(write_layer: int) -> None:
    with fake_device():
        decoder = make(write_layer=write_layer, injection="add")
        base = decoder.net.get_base_model()
        spread(decoder.net, base.model.layers[1:], base.model.norm)
        found = Capture(base, LAYERS)([np.arange(5), np.arange(3)])
        assert {values.device.index for values in found.values()} == {0, 1}
        HostCopier("bfloat16").start(found)
        for can_pack in (True, False):
            decoder.can_pack = can_pack
            turns = [
                [
                    decoder.prompt.turn("Who?", "Me."),
                    decoder.prompt.turn("Why?", "So."),
                ]
            ] * 2
            compute_turn_losses(decoder, readings(decoder), turns)
        assert len(generate_answers(decoder, readings(decoder), ["Who?"] * 2, max_tokens=2)) == 2


def test_another_model_spread_over_two_devices_is_read_in_a_task() -> None:
    with fake_device() as device:
        decoder = make()
        base = decoder.net.get_base_model()
        spread(decoder.net, base.model.layers[1:], base.model.norm)
        network = TargetNetwork(base, decoder.tokenizer)
        found = read_texts(network, ["abc", "ab"], LAYERS[1])
        assert [own.vectors.shape for own in found] == [(3, 32), (2, 32)]
        assert device.reads == {"read_texts": 1}


@pytest.mark.parametrize("new_tokens", ["mean", "gradient"])
def test_a_model_spread_over_two_devices_is_steered(
    new_tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passes forward: torch has queues for one device of a made-up kind in a backward pass."""

    def losses_alone(decoder: Decoder, rows: Any, turns: Any) -> Any:
        asked = [(row, row.vectors, own) for row, own in zip(rows, turns, strict=True)]
        losses = _losses(decoder, asked)
        return losses, losses.sum(), [torch.zeros_like(row.vectors) for row in rows]

    monkeypatch.setattr(shifts, "take_gradient", losses_alone)
    monkeypatch.setattr(hooks, "take_gradient", losses_alone)
    with fake_device():
        decoder = make(read_layer=LAYERS[1])
        base = decoder.net.get_base_model()
        spread(decoder.net, base.model.layers[1:], base.model.norm)
        config = ActivationSteeringConfig.model_validate({"new_tokens": new_tokens})
        prompts = steered_prompts()
        steering = Steering(objective=objective(decoder), config=config)
        ids = torch.zeros(2, 6, dtype=torch.long, device="cpu").to(decoder.device)
        with torch.no_grad(), steered_target(decoder, prompts, steering) as net:
            cache = net(input_ids=ids, use_cache=True).past_key_values
            net(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("fault", ["item", "mask", "cpu"])
def test_a_wait_or_a_tensor_of_the_cpu_in_the_loss_is_noticed(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = packed.question_losses

    def wrong(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        losses = right(logits, batch)
        if fault == "item":
            return losses / max(1.0, losses.sum().item())
        if fault == "mask":
            return losses[losses > 0]
        return losses * torch.ones(len(losses))

    monkeypatch.setattr(packed, "question_losses", wrong)
    with fake_device() as device:
        decoder = decoder_on("llama")
        rows = rows_of(decoder)
        trainer = trainer_of(decoder, rows, device, tmp_path, monkeypatch)
        with pytest.raises(
            (
                FakeTensorDeviceMismatchError,
                DataDependentOutputException,
                DynamicOutputShapeException,
            )
        ):
            take_step(trainer, decoder, rows)


@pytest.mark.parametrize("fault", ["item", "cpu"])
def test_a_wait_or_a_tensor_of_the_cpu_in_a_capture_is_noticed(fault: str) -> None:
    class Faulty(Capture):
        def _checked(self, output: torch.Tensor, batch_BT: torch.Tensor) -> torch.Tensor:
            found = super()._checked(output, batch_BT)
            if fault == "item":
                assert found.isfinite().all()
            return found + torch.zeros(32)

    with fake_device():
        net = make().net.get_base_model()
        move(net)
        with pytest.raises((FakeTensorDeviceMismatchError, DataDependentOutputException)):
            Faulty(net, LAYERS)([np.arange(5)])


@pytest.mark.parametrize("fault", ["item", "cpu"])
def test_a_wait_or_a_tensor_of_the_cpu_in_an_answer_is_noticed(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = attention_mask

    def wrong(net: Any, mask: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        found = right(net, mask, ids)
        if fault == "item":
            return found * found.sum().item()
        return found + torch.zeros(mask.shape[1])

    monkeypatch.setattr(asking, "attention_mask", wrong)
    with fake_device():
        decoder = decoder_on("llama")
        with pytest.raises((FakeTensorDeviceMismatchError, DataDependentOutputException)):
            generate_answers(decoder, readings(decoder), ["Who?"] * 2, max_tokens=2)


def test_a_look_at_the_positions_in_training_on_replies_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_loss, "without_look", lambda net: {})
    with fake_device():
        net = decoder_on("llama").net.get_base_model()
        with pytest.raises(DataDependentOutputException):
            compute_language_loss(net, [np.arange(5)])


def test_a_look_at_each_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_LOOK", 1)
    with fake_device() as device:
        decoder = decoder_on("llama")
        generate_answers(decoder, readings(decoder), ["Who?"] * 2, max_tokens=4)
        assert device.reads["_find_unfinished"] > 1
