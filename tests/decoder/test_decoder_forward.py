"""Loss and gradients against a plain computation: one question a row, no cache, no padding.

The reference is written from the published recipe (arXiv 2412.08686): the whole prompt rendered
and tokenised at once, the write block's output replaced at the placeholders, positions such that
each placeholder has its activation's own, the mean over answer and end of turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import decoders
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from activation_store.target.load import blocks
from core.errors import ModelError
from decoder.batch import make_batch, to_device
from decoder.forward import check_cacheable, compute_answer_losses
from decoder.model import Decoder
from decoder.packed import can_pack, compute_packed_losses, make_packed_batch
from decoder.reading import Reading

Pairs = Sequence[tuple[str, str]]
ASKED: list[Pairs] = [
    [("Who?", "A pirate.")],
    [("Is it a rather long question?", "yes"), ("Why?", "It likes the sea, and rum.")],
    [("A?", "b"), ("What does it do?", "Sails."), ("Is it kind to its crew?", "No.")],
    [("One?", "1"), ("Two?", "2 or 3"), ("Three?", "no"), ("And the last of them?", "Four it is")],
]
ROWS = [(1, 0), (30, 0), (12, 41), (5, 90)]
"""(placeholders, first position): view control, and masked rows."""


def readings(*, vectors: bool = True) -> list[Reading]:
    return [
        decoders.reading(n, first, seed=i, vectors=vectors) for i, (n, first) in enumerate(ROWS)
    ]


def reference(decoder: Decoder, reading: Reading, question: str, answer: str) -> torch.Tensor:
    """Answer loss of one question, with its graph."""
    config, tokenizer = decoder.config, decoder.tokenizer
    marks = "?" * reading.n
    names = [f"Layer {layer}: " for layer in reading.layers] or [""]
    text = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "\n".join(name + marks for name in names)},
            {"role": "assistant", "content": config.preamble},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        tokenize=False,
        date_string="01 Jan 2025",
    )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    starts = [start for start, _ in encoded["offset_mapping"]]
    places: list[int] = []
    at = 0
    for _ in names:
        at = text.index(marks, at) + len(marks)
        run = starts.index(at - len(marks))
        places += range(run, run + len(marks))
    answered = starts.index(text.rindex(answer))
    end = answered + len(answer.encode())  # a byte a token, then the end of the turn
    stood = torch.arange(ids.shape[1])
    if config.positions == "target":
        for i, name in enumerate(names):  # each run stands where its activations stood
            run = places[i * len(marks)]
            begin = run - len("\n" + name) if i else 0
            stood[begin:] = torch.arange(ids.shape[1] - begin) + begin - run
            stood[begin:] += reading.first_position
    positions = stood.clamp(min=0)[None]

    def replace(module: torch.nn.Module, args: object, output: object) -> object:
        states = output if isinstance(output, torch.Tensor) else output[0]  # type: ignore[index]
        states = states.clone()
        for i, vector in zip(places, torch.from_numpy(reading.vectors), strict=True):
            if config.injection == "replace":
                states[0, i] = vector
            else:  # h + |h| v / |v|, arXiv 2512.15674
                own = states[0, i].clone()
                states[0, i] = own + own.norm() * vector / vector.norm()
        return states if isinstance(output, torch.Tensor) else (states, *output[1:])  # type: ignore[index]

    base = decoder.net.get_base_model()
    hook = None
    if reading.vectors is not None:
        hook = blocks(base)[config.write_layer].register_forward_hook(replace)
    try:
        logits = decoder.net(
            input_ids=ids[:, : end + 1],
            position_ids=positions[:, : end + 1],
            attention_mask=torch.ones(1, end + 1, dtype=torch.long),
            use_cache=False,
        ).logits[0]
    finally:
        if hook is not None:
            hook.remove()
    return F.cross_entropy(logits[answered - 1 : end], ids[0, answered : end + 1])


def padded(decoder: Decoder, rows: Sequence[Reading], asked: Sequence[Pairs]) -> torch.Tensor:
    turns = [[decoder.prompt.turn(q, a) for q, a in own] for own in asked]
    batch = to_device(make_batch(decoder.prompt, rows, turns), decoders.CPU)
    return compute_answer_losses(decoder.net, decoder.injection, batch)


def packed(decoder: Decoder, rows: Sequence[Reading], asked: Sequence[Pairs]) -> torch.Tensor:
    turns = [[decoder.prompt.turn(q, a) for q, a in own] for own in asked]
    batch = make_packed_batch(decoder.prompt, rows, turns)
    return compute_packed_losses(decoder.net, decoder.injection, batch)


def gradients(decoder: Decoder, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    decoder.net.zero_grad()
    torch.autograd.backward(loss)
    return {
        name: p.grad.clone() for name, p in decoder.net.named_parameters() if p.grad is not None
    }


def assert_equal_to_reference(
    decoder: Decoder,
    computed: Callable[..., torch.Tensor],
    rows: Sequence[Reading],
    asked: Sequence[Pairs] = ASKED,
) -> None:
    expected = torch.stack(
        [
            reference(decoder, row, q, a)
            for row, own in zip(rows, asked, strict=True)
            for q, a in own
        ]
    )
    wanted = gradients(decoder, expected.mean())
    losses = computed(decoder, rows, asked)
    found = gradients(decoder, losses.mean())
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        distance = float((found[name] - gradient).norm())
        assert distance <= 1e-4 * float(gradient.norm()) + 1e-8, name
    assert sum(float(g.norm()) for g in wanted.values()) > 0.01


@pytest.mark.parametrize(("write_layer", "injection"), [(0, "replace"), (1, "replace"), (1, "add")])
@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_loss_and_gradients_are_the_plain_ones(
    family: str, write_layer: int, injection: str
) -> None:
    decoder = decoders.make(family, write_layer=write_layer, injection=injection)
    assert_equal_to_reference(decoder, padded, readings())
    if can_pack(decoder.net):
        assert_equal_to_reference(decoder, packed, readings())
    else:
        assert family in ("gemma3", "mistral")


@pytest.mark.parametrize("computed", [padded, packed])
def test_plain_positions_are_the_plain_ones(computed: Callable[..., torch.Tensor]) -> None:
    assert_equal_to_reference(decoders.make(positions="plain"), computed, readings())


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_condition_none_keeps_the_placeholders_own_embeddings(family: str) -> None:
    assert_equal_to_reference(decoders.make(family), padded, readings(vectors=False))


@pytest.mark.parametrize("computed", [padded, packed])
@pytest.mark.parametrize("injection", ["replace", "add"])
def test_eight_questions_a_row_are_the_plain_ones(
    computed: Callable[..., torch.Tensor], injection: str
) -> None:
    asked = [[(f"Question {i}?", "yes " * i + "no") for i in range(8)] for _ in range(2)]
    rows = [decoders.reading(40, 3), decoders.reading(7, 60)]
    assert_equal_to_reference(decoders.make(injection=injection), computed, rows, asked)


@pytest.mark.parametrize(
    ("combine", "family", "positions"),
    [
        ("sampled", "llama", "target"),
        ("concatenated", "llama", "target"),
        ("concatenated", "llama", "plain"),
        ("concatenated", "gemma3", "target"),
        ("concatenated", "mistral", "target"),
    ],
)
def test_named_layers_are_the_plain_ones(combine: str, family: str, positions: str) -> None:
    decoder = decoders.make(
        family, read_layers=[2, 0, 12], combine=combine, positions=positions, injection="add"
    )
    rows = []
    for i, (n, first) in enumerate(ROWS):
        layers = (2, 0, 12) if combine == "concatenated" else ((2, 0, 12)[i % 3],)
        vectors = decoders.reading(n * len(layers), seed=i).vectors
        rows.append(Reading(vectors, n, first, layers))
    assert_equal_to_reference(decoder, padded, rows)
    if can_pack(decoder.net):
        assert_equal_to_reference(decoder, packed, rows)


def test_an_activation_of_no_length_adds_nothing() -> None:
    nothing = Reading(np.zeros((4, 32), np.float32), 4, 0)
    own = Reading(None, 4, 0)
    decoder = decoders.make(injection="add")
    with torch.no_grad():
        given, kept = (padded(decoder, [row], [ASKED[0]]) for row in (nothing, own))
    torch.testing.assert_close(given, kept)


def test_the_last_block_can_be_written_to() -> None:
    assert_equal_to_reference(decoders.make(write_layer=3), padded, readings())


@pytest.mark.parametrize("questions", range(4))
def test_a_row_alone_is_what_it_is_in_a_batch(questions: int) -> None:
    decoder = decoders.make()
    rows = readings()
    with torch.no_grad():
        whole = padded(decoder, rows, ASKED)
        alone = padded(decoder, [rows[questions]], [ASKED[questions]])
    before = sum(map(len, ASKED[:questions]))
    torch.testing.assert_close(whole[before : before + questions + 1], alone, rtol=1e-5, atol=1e-5)


def test_the_head_runs_on_the_tokens_that_predict_answers_alone() -> None:
    decoder = decoders.make()
    seen: list[int] = []
    head = decoder.net.get_output_embeddings()
    head.register_forward_hook(lambda head, args, logits: seen.append(logits.shape[0]))
    with torch.no_grad():
        padded(decoder, readings(), ASKED)
    turns = [decoder.prompt.turn(q, a) for own in ASKED for q, a in own]
    assert seen == [0, sum(int(turn.answer.sum()) for turn in turns)]


def test_the_loss_depends_on_the_activations_and_their_positions() -> None:
    decoder = decoders.make()
    with torch.no_grad():
        a = padded(decoder, [decoders.reading(9, 20, seed=0)], [ASKED[0]])
        b = padded(decoder, [decoders.reading(9, 20, seed=1)], [ASKED[0]])
        c = padded(decoder, [decoders.reading(9, 60, seed=0)], [ASKED[0]])
        d = padded(decoder, [decoders.reading(9, 20, vectors=False)], [ASKED[0]])
    assert len({round(float(x), 4) for x in (a, b, c, d)}) == 4


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3"])
@pytest.mark.parametrize("write_layer", [0, 2])
def test_injection_touches_the_placeholders_alone(family: str, write_layer: int) -> None:
    decoder = decoders.make(family, write_layer=write_layer)
    rows = readings()
    turns = [[decoder.prompt.turn("Who?", "I.")] for _ in rows]
    batch = make_batch(decoder.prompt, rows, turns)
    seen: list[torch.Tensor] = []
    # registered after the injection's own, so that it sees what that made
    with torch.no_grad():
        for drop in (False, True):
            given = {k: v for k, v in batch.items() if not (drop and k == "vectors")}
            handle = decoder.injection.block.register_forward_hook(
                lambda m, a, o: seen.append(o if isinstance(o, torch.Tensor) else o[0])
            )
            compute_answer_losses(decoder.net, decoder.injection, given)  # type: ignore[arg-type]
            handle.remove()
    written, plain = seen[0].flatten(0, 1), seen[2].flatten(0, 1)
    places = batch["places"]
    assert torch.equal(written[places], batch["vectors"])
    rest = torch.ones(len(written), dtype=torch.bool)
    rest[places] = False
    assert torch.equal(written[rest], plain[rest])
    assert not torch.equal(written, plain)
    assert not decoder.injection.block._forward_hooks


def test_readings_with_and_without_vectors_do_not_mix() -> None:
    decoder = decoders.make()
    mixed = [decoders.reading(3), decoders.reading(3, vectors=False)]
    for computed in (padded, packed):
        with pytest.raises(ValueError, match="with and without vectors"):
            computed(decoder, mixed, [ASKED[0], ASKED[0]])


def test_gradient_checkpointing_is_noticed() -> None:
    decoder = decoders.make()
    decoder.net.gradient_checkpointing_enable()
    decoder.net.train()
    with pytest.raises(RuntimeError, match="kept no keys and values of the prefix"):
        padded(decoder, readings(), ASKED)


def test_a_distributed_wrapper_changes_nothing(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    decoder = decoders.make()
    turns = [[decoder.prompt.turn(q, a) for q, a in own] for own in ASKED]
    batch = make_batch(decoder.prompt, readings(), turns)
    expected = compute_answer_losses(decoder.net, decoder.injection, batch)
    wanted = gradients(decoder, expected.mean())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(decoder.net)
        losses = compute_answer_losses(wrapped, decoder.injection, batch)
        found = gradients(decoder, losses.mean())
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(losses, expected)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)


def recurrent(kind: str) -> PreTrainedModel:
    """Make a tiny model whose blocks are not all attention."""
    import transformers

    if kind == "mamba":
        mamba = transformers.MambaConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4
        )
        return transformers.MambaForCausalLM(mamba)
    config = transformers.Qwen3NextConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=16,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        num_experts=2,
        num_experts_per_tok=1,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    )
    return transformers.Qwen3NextForCausalLM(config)


@pytest.mark.parametrize("kind", ["mamba", "qwen3_next"])
def test_a_model_that_remembers_otherwise_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match=f"model tiny: type {kind} keeps .* Such a model cannot"):
        check_cacheable(recurrent(kind), "tiny")


def by_place(kind: str) -> PreTrainedModel:
    """Make a tiny model that counts positions by place."""
    import transformers

    if kind == "bloom":
        bloom = transformers.BloomConfig(vocab_size=32, hidden_size=16, n_layer=1, n_head=2)
        return transformers.BloomForCausalLM(bloom)
    if kind == "mpt":
        config = transformers.MptConfig(d_model=16, n_layers=1, n_heads=2, vocab_size=32)
        return transformers.MptForCausalLM(config)
    falcon = transformers.FalconConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, alibi=True
    )
    return transformers.FalconForCausalLM(falcon)


@pytest.mark.parametrize("kind", ["bloom", "mpt", "falcon"])
def test_a_model_that_counts_positions_by_place_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match=f"type {kind} counts positions by place .* cannot be a"):
        check_cacheable(by_place(kind), "tiny")


def test_the_weights_of_a_batch_make_a_mean_over_each_answer() -> None:
    decoder = decoders.make()
    turns = [[decoder.prompt.turn(q, a) for q, a in own] for own in ASKED]
    batch = make_batch(decoder.prompt, readings(), turns)
    sums = np.bincount(batch["question_of"].numpy(), weights=batch["weights"].numpy())
    np.testing.assert_allclose(sums, np.ones(10), rtol=1e-6)
    assert batch["row_of"].tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]
