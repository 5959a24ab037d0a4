"""The decoder in bfloat16 against itself in float32, on a CPU, for every family."""

from __future__ import annotations

import decoders
import pytest
import torch

from decoder.batch import to_device
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_loss_batch
from decoder.scoring import compute_turn_losses

ASKED = [("Who is it?", "A pirate."), ("Is it kind?", "No, it is not.")]
LOSS = 0.02
"""Largest relative difference of an answer's loss."""
COSINE = 0.99


def losses(decoder: Decoder) -> list[float]:
    rows = [decoders.reading(n, 3 * n, seed=n) for n in (4, 9)]
    turns = [[decoder.prompt.turn(*asked) for asked in ASKED]] * 2
    return [loss for own in compute_turn_losses(decoder, rows, turns) for loss in own]


def gradient(decoder: Decoder) -> torch.Tensor:
    """Return the gradient of the adapter's weights, one after the other."""
    rows = [decoders.reading(9, 27)]
    turns = [[decoder.prompt.turn(*asked) for asked in ASKED]]
    batch = make_loss_batch(decoder.prompt, rows, turns, packed=decoder.can_pack)
    weights = [w for name, w in decoder.net.named_parameters() if "lora_" in name]
    for weight in weights:
        weight.requires_grad_(True)
    loss = compute_answer_losses(decoder.net, decoder.injection, to_device(batch, decoders.CPU))
    found = torch.autograd.grad(loss.sum(), weights)
    assert {weight.dtype for weight in weights} == {torch.float32}
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize("injection", ["replace", "add"])
@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_losses_and_gradients_are_near_those_of_float32(family: str, injection: str) -> None:
    wide, narrow = (
        decoders.make(family, dtype=dtype, injection=injection) for dtype in ("float32", "bfloat16")
    )
    assert narrow.dtype == "bfloat16"
    assert losses(narrow) == pytest.approx(losses(wide), rel=LOSS)
    assert torch.cosine_similarity(gradient(wide), gradient(narrow), dim=0) > COSINE


def test_an_adapter_is_multiplied_in_the_format_of_its_base() -> None:
    decoder = decoders.make("llama", dtype="bfloat16")
    seen: set[torch.dtype] = set()
    for name, module in decoder.net.named_modules():
        if name.endswith(("lora_A.default", "lora_B.default")):
            module.register_forward_hook(
                lambda module, args, output: seen.update((args[0].dtype, output.dtype))
            )
    losses(decoder)
    assert seen == {torch.bfloat16}
