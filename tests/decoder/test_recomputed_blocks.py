"""Gradient checkpointing of packed rows."""

from __future__ import annotations

import decoders
import pytest
import torch

from core.errors import ConfigError
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_packed_batch


def run(decoder: Decoder) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Return losses, gradients of the adapter, and the bytes that were kept for them."""
    rows = [decoders.reading(n, 3 * n, seed=n) for n in (4, 9)]
    turns = [
        [
            decoder.prompt.turn("Who is it?", "A pirate."),
            decoder.prompt.turn("Why?", "So."),
        ]
    ]
    weights = [w for name, w in decoder.net.named_parameters() if "lora_" in name]
    for weight in weights:
        weight.requires_grad_(True)
    decoder.net.train()
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        batch = make_packed_batch(decoder.prompt, rows, turns * 2)
        losses = compute_answer_losses(decoder.net, decoder.injection, batch)
    found = torch.autograd.grad(losses.sum(), weights)
    return losses, list(found), sum(kept.values())


@pytest.mark.parametrize("injection", ["replace", "add"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "phi3"])
def test_blocks_that_are_computed_again_give_the_same_gradients(
    family: str, injection: str
) -> None:
    plain, recomputed = (decoders.make(family, injection=injection) for _ in range(2))
    recomputed.recompute_blocks()
    losses, gradients, kept = run(plain)
    found, again, kept_less = run(recomputed)
    assert torch.equal(found, losses)
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-7)
    assert kept_less < 0.7 * kept


def test_a_model_whose_rows_are_not_packed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.checkpointing: got true .* false"):
        decoders.make("gemma3").recompute_blocks()
