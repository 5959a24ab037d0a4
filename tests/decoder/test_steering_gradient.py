"""The decoder's gradient against finite differences, and with a network shared by two adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import decoders
import numpy as np
import pytest
import torch
from peft import LoraConfig

from core.records.tables import Message
from decoder.adapters import use_adapter
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.sources.target_run import capture
from decoder.steering.gradient import WeightedTurn, answer_loss, compute_answer_gradient

ASKED = [("Who is it?", "A pirate."), ("Is it kind?", "No.")]
ROWS = [(3, 0), (7, 20)]


def turns(decoder: Decoder, *weights: float) -> list[list[WeightedTurn]]:
    made = [decoder.prompt.turn(*asked) for asked in ASKED]
    own = [WeightedTurn(turn, weight) for turn, weight in zip(made, weights, strict=True)]
    return [own, own[:1]]


def readings(decoder: Decoder) -> list[Reading]:
    named = decoder.select_layers()
    return [
        decoders.reading(n, first, seed=i, layers=named.layers if named.named else ())
        for i, (n, first) in enumerate(ROWS)
    ]


class Float64Norm(torch.nn.Module):
    """A root-mean-square norm in the width of its input; transformers' own are in float32."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight.double(), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def in_float64(decoder: Decoder, rows: Sequence[Reading]) -> list[Reading]:
    decoder.net.double()
    for module in list(decoder.net.modules()):
        for name, child in list(module.named_children()):
            kind = type(child).__name__
            if kind.endswith("RMSNorm"):
                gain = child.weight + 1 if kind.startswith("Gemma") else child.weight
                eps = child.eps if hasattr(child, "eps") else child.variance_epsilon
                setattr(module, name, Float64Norm(gain.detach(), float(eps)))
    return [replace(r, vectors=torch.as_tensor(r.vectors).double()) for r in rows]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("injection", ["replace", "add"])
def test_gradients_equal_finite_differences(family: str, injection: str) -> None:
    decoder = decoders.make(family, injection=injection)
    rows = in_float64(decoder, readings(decoder))
    asked = turns(decoder, 1.0, -0.5)
    found = compute_answer_gradient(decoder, rows, asked)
    generator = torch.Generator().manual_seed(0)
    for row, gradient in enumerate(found.gradients):
        vectors = rows[row].vectors
        assert isinstance(vectors, torch.Tensor)
        direction = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
        step = 1e-5

        def moved(
            by: float,
            row: int = row,
            vectors: torch.Tensor = vectors,
            direction: torch.Tensor = direction,
        ) -> float:
            others = list(rows)
            others[row] = replace(rows[row], vectors=vectors + by * direction)
            return compute_answer_gradient(decoder, others, asked).total

        slope = (moved(step) - moved(-step)) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("combine", ["sampled", "concatenated"])
def test_gradients_of_several_layers_equal_finite_differences(combine: str) -> None:
    decoder = decoders.make(read_layers=[1, 2], combine=combine)
    rows = in_float64(decoder, readings(decoder))
    asked = turns(decoder, 1.0, 1.0)
    gradient = compute_answer_gradient(decoder, rows, asked).gradients[1]
    vectors = rows[1].vectors
    assert isinstance(vectors, torch.Tensor)
    place, step = (len(vectors) - 1, 3), 1e-5
    totals = []
    for by in (step, -step):
        changed = vectors.clone()
        changed[place] += by
        others = [rows[0], replace(rows[1], vectors=changed)]
        totals.append(compute_answer_gradient(decoder, others, asked).total)
    assert float(gradient[place]) == pytest.approx((totals[0] - totals[1]) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("injection", ["replace", "add"])
def test_a_cached_prefix_and_recomputed_blocks_give_the_gradient_of_packed_rows(
    injection: str,
) -> None:
    packed, cached, recomputed = (decoders.make(injection=injection) for _ in range(3))
    rows, asked = in_float64(packed, readings(packed)), turns(packed, 1.0, -0.5)
    assert packed.can_pack
    wanted = compute_answer_gradient(packed, rows, asked).gradients
    in_float64(cached, rows)
    cached.can_pack = False  # the prefix's keys and values, and the questions over them
    in_float64(recomputed, rows)
    recomputed.recompute_blocks()
    recomputed.net.train()  # blocks are computed again in training mode alone
    for decoder in (cached, recomputed):
        found = compute_answer_gradient(decoder, rows, asked).gradients
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)


def test_losses_are_those_of_scoring() -> None:
    decoder = decoders.make()
    rows = readings(decoder)
    asked = turns(decoder, 1.0, 2.0)
    found = compute_answer_gradient(decoder, rows, asked)
    plain = compute_turn_losses(decoder, rows, [[t.turn for t in own] for own in asked])
    for own, other in zip(found.losses, plain, strict=True):
        assert own == pytest.approx(other, rel=1e-5)
    weighted = plain[0][0] + 2 * plain[0][1] + plain[1][0]
    assert found.total == pytest.approx(weighted, rel=1e-5)


def test_added_directions_have_no_gradient_along_themselves() -> None:
    decoder = decoders.make(injection="add")
    rows = readings(decoder)
    found = compute_answer_gradient(decoder, rows, turns(decoder, 1.0, 1.0))
    for reading, gradient in zip(rows, found.gradients, strict=True):
        along = (gradient * torch.as_tensor(reading.vectors)).sum(-1)
        assert along.abs().max() < 1e-4 * float(gradient.norm())


def test_gradients_in_bfloat16_point_the_same_way() -> None:
    decoder = decoders.make()
    rows = readings(decoder)
    asked = turns(decoder, 1.0, 1.0)
    wide = compute_answer_gradient(decoder, rows, asked).gradients
    decoder.net.bfloat16()
    narrow = compute_answer_gradient(decoder, rows, asked).gradients
    for one, other in zip(wide, narrow, strict=True):
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert cosine > 0.99


def steered(decoder: Decoder) -> list[torch.nn.Parameter]:
    """Add an adapter that steers the target up to the read layer; return its weights."""
    config = LoraConfig(
        r=2, target_modules=["q_proj", "down_proj"], layers_to_transform=list(range(3))
    )
    decoder.net.add_adapter("steer", config)
    weights = [p for name, p in decoder.net.named_parameters() if ".steer." in name]
    generator = torch.Generator().manual_seed(2)
    for weight in weights:
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    decoder.net.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def target_vectors(decoder: Decoder) -> torch.Tensor:
    from activation_store.target.capture import Capture

    ids = np.arange(5, 14)
    net = decoder.net.get_base_model()
    with use_adapter(decoder.net, "steer"):
        return Capture(net, [2], gradients=True)([ids])[2][0]


def total(decoder: Decoder) -> torch.Tensor:
    vectors = target_vectors(decoder)
    return answer_loss(decoder, [Reading(vectors, len(vectors), 0)], turns(decoder, 1.0, 1.0)[:1])


def test_the_gradient_reaches_the_target_s_adapter_through_the_decoder_s() -> None:
    decoder = decoders.make()
    weights = steered(decoder)
    total(decoder).backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in weights]
    assert all(gradient is not None for gradient in gradients)
    chosen = max(range(len(weights)), key=lambda i: float(gradients[i].norm()))  # type: ignore[union-attr]
    weight, gradient = weights[chosen], gradients[chosen]
    assert gradient is not None
    place = divmod(int(gradient.abs().argmax()), gradient.shape[1])
    step = 1e-2
    with torch.no_grad():
        weight[place] += step
        up = float(total(decoder))
        weight[place] -= 2 * step
        down = float(total(decoder))
    assert float(gradient[place]) == pytest.approx((up - down) / (2 * step), rel=0.05)


def test_no_weight_of_the_decoder_gets_a_gradient() -> None:
    decoder = decoders.make()
    weights = steered(decoder)
    total(decoder).backward()  # type: ignore[no-untyped-call]
    own = {id(weight) for weight in weights}
    assert all(p.grad is None for p in decoder.net.parameters() if id(p) not in own)


def test_switching_adapters_as_peft_does_gives_no_gradient() -> None:
    """The trap that `use_adapter` avoids: peft flips flags between forward and backward."""
    decoder = decoders.make()
    weights = steered(decoder)
    decoder.net.set_adapter("steer")
    from activation_store.target.capture import Capture

    vectors = Capture(decoder.net.get_base_model(), [2], gradients=True)([np.arange(5, 14)])[2][0]
    decoder.net.set_adapter("default")
    loss = answer_loss(decoder, [Reading(vectors, 9, 0)], turns(decoder, 1.0, 1.0)[:1])
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None for weight in weights)


def test_a_switch_leaves_adapters_and_flags_as_they_were() -> None:
    decoder = decoders.make()
    steered(decoder)
    before = [(p.requires_grad, name) for name, p in decoder.net.named_parameters()]
    with (
        decoder.without_adapter(),
        use_adapter(decoder.net, "steer"),
        use_adapter(decoder.net, "default"),
        pytest.raises(RuntimeError),
        use_adapter(decoder.net, None),
    ):
        raise RuntimeError
    assert [(p.requires_grad, name) for name, p in decoder.net.named_parameters()] == before
    assert decoder.net.active_adapter == "default"
    assert decoder.net.active_adapters == ["default"]


def test_a_nested_switch_off_is_still_off_afterwards() -> None:
    decoder = decoders.make()
    message = Message(role="user", content="Hello there", segment="stimulus")
    bare = capture(decoder, [[message]], [2])[0].vectors[2]
    ids = capture(decoder, [[message]], [2])[0].tokens.ids
    from activation_store.target.capture import Capture

    with use_adapter(decoder.net, None):
        with use_adapter(decoder.net, "default"):
            pass
        again = Capture(decoder.net.get_base_model(), [2])([ids])[2][0]
    np.testing.assert_array_equal(again.numpy(), bare)
