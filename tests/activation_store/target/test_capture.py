"""The target's forward pass up to the deepest read layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from activation_store.layout.arrays import to_float32
from activation_store.target.capture import Capture, split_to_fit
from activation_store.target.generation import Sampling, generate_ids
from activation_store.target.host_copy import to_stored
from activation_store.target.load import blocks
from core.errors import ModelError

SEQUENCES = [np.arange(5, 5 + n, dtype=np.int32) for n in (3, 17, 9, 1)]


def block_outputs(net: nn.Module, ids: np.ndarray) -> list[torch.Tensor]:
    """Return outputs of all blocks for one sequence, by hooks on a whole forward pass."""
    out: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda module, args, output: out.append(
                output if isinstance(output, torch.Tensor) else output[0]
            )
        )
        for block in blocks(net)
    ]
    with torch.inference_mode():
        net(torch.from_numpy(ids.astype(np.int64))[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return [states[0] for states in out]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_row_of_a_batch_is_what_it_is_alone(family: str) -> None:
    net = tiny.model(family=family)
    found = Capture(net, [0, 2, 3])(SEQUENCES)
    assert sorted(found) == [0, 2, 3]
    for i, ids in enumerate(SEQUENCES):
        alone = block_outputs(net, ids)
        for layer, states in found.items():
            assert states.shape == (4, 17, 32)
            torch.testing.assert_close(states[i, : len(ids)], alone[layer], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", range(4))
def test_no_later_block_and_no_head_runs(layer: int) -> None:
    net = tiny.model()
    ran: list[str] = []
    for name, module in net.named_modules():
        module.register_forward_hook(lambda m, a, o, name=name: ran.append(name))
    Capture(net, [layer])(SEQUENCES)
    done = {name for name in ran if name.startswith("model.layers") and name.count(".") == 2}
    assert done == {f"model.layers.{k}" for k in range(layer + 1)}
    assert "lm_head" not in ran
    assert "model.norm" not in ran


def test_the_last_block_is_taken_before_the_final_norm() -> None:
    net = tiny.model()
    with torch.no_grad():
        net.model.norm.weight.mul_(3)
    ids = SEQUENCES[1]
    raw = Capture(net, [3])([ids])[3][0]
    with torch.inference_mode():
        states = net(torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True)
        torch.testing.assert_close(net.model.norm(raw), states.hidden_states[4][0])
    assert not torch.allclose(raw, states.hidden_states[4][0])


def test_the_order_of_the_layers_does_not_matter() -> None:
    net = tiny.model()
    a, b = Capture(net, [2, 0])(SEQUENCES), Capture(net, [0, 2])(SEQUENCES)
    assert all(torch.equal(a[k], b[k]) for k in (0, 2))


def test_the_model_is_left_as_it_was() -> None:
    net = tiny.model()
    ids = torch.arange(5, 12)[None]
    before = net(ids).logits
    Capture(net, [1])(SEQUENCES)
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(net(ids).logits, before)


def test_an_error_of_the_model_is_not_taken_for_the_end() -> None:
    net = tiny.model()

    def fails(module: nn.Module, args: object, output: object) -> None:
        raise RuntimeError("out of memory")

    blocks(net)[1].register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        Capture(net, [2])(SEQUENCES)
    assert not blocks(net)[2]._forward_hooks


@pytest.mark.parametrize(
    ("dtype", "physical"),
    [("bfloat16", np.uint16), ("float16", np.float16), ("float32", np.float32)],
)
def test_stored_values_come_back(dtype: str, physical: type) -> None:
    values = torch.tensor([[1.5, -2.0, 3.141592, 65280.0, 1e-3, 0.0, -0.0]])
    stored = to_stored(values, dtype)
    assert stored.dtype == physical
    expected = values.to(getattr(torch, dtype)).float()
    assert to_float32(stored, dtype).tolist() == expected.tolist()


def test_bfloat16_rounds_to_nearest() -> None:
    values = torch.tensor([1 + 2**-8 + 2**-12, 1 + 2**-9])
    assert to_float32(to_stored(values, "bfloat16"), "bfloat16").tolist() == [1 + 2**-7, 1.0]


class FullDevice:
    """A forward pass on a device with room for `room` sequences at a time."""

    def __init__(self, room: int, error: RuntimeError) -> None:
        self.room, self.error = room, error
        self.tried: list[list[int]] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.tried.append(list(batch))
        if len(batch) > self.room:
            raise self.error
        return [10 * n for n in batch]


NO_ROOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError("MPS backend out of memory"),
]


@pytest.mark.parametrize("error", NO_ROOM, ids=["cuda", "cpu", "mps"])
def test_a_batch_that_does_not_fit_is_halved_by_a_fixed_rule(error: RuntimeError) -> None:
    device = FullDevice(2, error)
    found = list(split_to_fit(device, [1, 2, 3, 4, 5]))
    assert found == [([10, 20], [1, 2]), ([30], [3]), ([40, 50], [4, 5])]
    assert device.tried == [[1, 2, 3, 4, 5], [1, 2, 3], [1, 2], [3], [4, 5]]


def test_a_batch_that_fits_is_run_once() -> None:
    device = FullDevice(9, NO_ROOM[0])
    assert list(split_to_fit(device, [1, 2])) == [([10, 20], [1, 2])]


def test_a_single_sequence_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"no room for a single sequence .* smaller dump.max_tok"):
        list(split_to_fit(FullDevice(0, NO_ROOM[0]), [1, 2]))


def test_other_errors_are_not_taken_for_a_full_device() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(split_to_fit(FullDevice(0, RuntimeError("shapes differ")), [1, 2]))


def with_long_positions() -> Any:
    """Make a model that encodes all positions otherwise past 16 tokens."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [7.0] * 4}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16, **factors}
    return tiny.model(
        family="phi3",
        rope_parameters={**rope, "rope_theta": 1e4},
        max_position_embeddings=64,
        original_max_position_embeddings=16,
    )


def test_replies_on_both_sides_of_a_switch_of_positions_are_what_they_are_alone() -> None:
    net = with_long_positions()
    prompts = [list(range(5, 5 + n)) for n in (4, 14, 30, 8)]
    sampling = Sampling(max_tokens=6)
    together = generate_ids(net, prompts, (), sampling)
    assert together == [generate_ids(net, [own], (), sampling)[0] for own in prompts]


def test_rows_on_both_sides_of_a_switch_of_positions_are_what_they_are_alone() -> None:
    net = with_long_positions()
    rows = [np.arange(5, 5 + n) for n in (9, 40, 16, 30)]
    capture = Capture(net, (0, 3))
    together = capture(rows)
    for i, ids in enumerate(rows):
        alone = capture([ids])
        for layer in (0, 3):
            torch.testing.assert_close(
                together[layer][i, : len(ids)], alone[layer][0], rtol=1e-5, atol=1e-5
            )


def test_blocks_with_several_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny.model()
    block = blocks(net)[1]
    block.register_forward_hook(lambda module, args, output: torch.stack([output] * 4))
    with pytest.raises(ModelError, match=r"output of a block has shape \[4, 1, 3, 32\]"):
        Capture(net, (1,))([np.arange(3)])
