"""Steering by activations: what moves, how far, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import decoders
import numpy as np
import pytest
import torch

from activation_store.target.generation import Sampling
from core.errors import ConfigError, DataError, ModelError
from core.records.steering_control import SteeringControl, WantedAnswer
from decoder.model import Decoder
from decoder.normalisation import ActivationStatistics
from decoder.reading import Reading
from decoder.steering import hooks
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.geometry import Geometry
from decoder.steering.gradient import take_gradient
from decoder.steering.objective import make_objective
from decoder.steering.prompts import SteeringPrompt, make_steering_prompt, tokenize_prompt
from decoder.steering.replies import Steering, follow_by_replies, score_replies, write_replies
from decoder.steering.shifts import capture_prompts, compute_common_shift, compute_shifts
from decoder.steering.vectors import SteeringVector

PIRATE = SteeringControl(
    control="pirate",
    description="The assistant is a pirate.",
    questions=(
        WantedAnswer(question="Who is it?", answer="A pirate."),
        WantedAnswer(question="What does it say?", answer="Ahoy."),
    ),
)
KNIGHT = SteeringControl(
    control="knight",
    description="The assistant is a knight.",
    questions=(WantedAnswer(question="Who is it?", answer="A knight."),),
)
WRITE = Sampling(max_tokens=6)


@pytest.fixture(params=["llama", "gemma3"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return decoders.make(request.param)


@pytest.fixture
def prompts(decoder: Decoder) -> list[SteeringPrompt]:
    return [
        tokenize_prompt(decoder.tokenizer, text) for text in ("Hi", "Tell me of the sea, please")
    ]


def test_steps_lower_the_loss_of_the_answers(
    decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    objective = make_objective(decoder, [PIRATE])
    shifts = compute_shifts(decoder, prompts, objective, ActivationSteeringConfig(steps=6))
    for before, after in zip(shifts.before, shifts.after, strict=True):
        assert after < before - 0.01


def test_a_planted_loss_is_steered_to_its_known_optimum(
    decoder: Decoder, prompts: list[SteeringPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss whose lowest point is known in place of the decoder's: the steps end there."""
    (captured,) = zip(*capture_prompts(decoder, prompts, [decoders.READ_LAYER]), strict=True)
    optimum = torch.full((32,), 0.5 * float(captured[0].norm(dim=-1).median()) / 32**0.5)

    def planted(net: object, injection: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        away = (batch["vectors"] - optimum).square().sum(-1)
        return away.mean().expand(len(batch["row_of"]))

    monkeypatch.setattr("decoder.steering.gradient.compute_answer_losses", planted)
    config = ActivationSteeringConfig(step_size=0.05, steps=60, norm_limit=10.0)
    for prompt, own in zip(prompts, captured, strict=True):
        shifts = compute_shifts(decoder, [prompt], make_objective(decoder, [PIRATE]), config)
        read = (own + shifts.shifts[0][0])[prompt.withheld :]
        before = (own[prompt.withheld :] - optimum).norm(dim=-1).mean()
        assert (read - optimum).norm(dim=-1).mean() < 0.15 * before


def test_a_negative_weight_raises_it(decoder: Decoder, prompts: list[SteeringPrompt]) -> None:
    objective = make_objective(decoder, [PIRATE], [-1.0])
    shifts = compute_shifts(decoder, prompts, objective, ActivationSteeringConfig(steps=6))
    for before, after in zip(shifts.before, shifts.after, strict=True):
        assert after > before + 0.01


def test_weights_decide_between_controls(decoder: Decoder, prompts: list[SteeringPrompt]) -> None:
    config = ActivationSteeringConfig(steps=3)
    alone = compute_shifts(decoder, prompts, make_objective(decoder, [KNIGHT]), config)
    both = compute_shifts(
        decoder, prompts, make_objective(decoder, [KNIGHT, PIRATE], [1.0, 1e-6]), config
    )
    torch.testing.assert_close(both.shifts[0], alone.shifts[0], atol=1e-4, rtol=1e-3)


def test_no_shift_is_longer_than_the_limit(decoder: Decoder, prompts: list[SteeringPrompt]) -> None:
    config = ActivationSteeringConfig(step_size=5.0, norm_limit=0.2)
    shifts = compute_shifts(decoder, prompts, make_objective(decoder, [PIRATE]), config)
    captured = capture_prompts(decoder, prompts, shifts.layers)
    for prompt, shift, own in zip(prompts, shifts.shifts, captured, strict=True):
        allowed = 0.2 * own[0][prompt.withheld :].norm(dim=-1)
        assert (shift[0, prompt.withheld :].norm(dim=-1) <= allowed * 1.001).all()
    assert shifts.limited > 0.5


def make_standardising() -> Decoder:
    """Make a decoder of which one feature varies by 50, and the others by 1."""
    decoder = decoders.make("llama", normalisation="standardise")
    deviation = np.ones((1, 32), np.float32)
    deviation[0, 5] = 50.0
    mean = np.full((1, 32), 2.0, np.float32)
    decoder.use_statistics(ActivationStatistics(mean=mean, deviation=deviation, length=1.0))
    return decoder


def test_lengths_are_measured_as_a_standardising_decoder_reads_them() -> None:
    decoder = make_standardising()
    prompt = tokenize_prompt(decoder.tokenizer, "Tell me of the sea")
    config = ActivationSteeringConfig(step_size=5.0, norm_limit=0.2)
    objective = make_objective(decoder, [PIRATE])
    (shift,) = compute_shifts(decoder, [prompt], objective, config).shifts
    ((own,),) = capture_prompts(decoder, [prompt], [decoders.READ_LAYER])
    unit = torch.ones(32)
    unit[5] = 50.0
    moved = (shift[0] / unit)[prompt.withheld :].norm(dim=-1)
    allowed = 0.2 * ((own - 2.0) / unit)[prompt.withheld :].norm(dim=-1)
    torch.testing.assert_close(moved, allowed, rtol=1e-3, atol=1e-5)


def test_the_geometry_of_a_decoder_that_does_not_normalise_is_that_of_its_vectors(
    decoder: Decoder,
) -> None:
    vectors = torch.randn(6, 32)
    lengths = Geometry.of(decoder).lengths(vectors)
    torch.testing.assert_close(lengths, vectors.norm(dim=-1, keepdim=True))


def test_one_shift_of_all_tokens_lowers_the_loss_further_than_the_mean_of_their_own(
    decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    objective = make_objective(decoder, [PIRATE])
    config = ActivationSteeringConfig(steps=8, vector_steps=8, step_size=0.05)
    common = compute_common_shift(decoder, prompts, objective, config)
    assert common.after < common.before - 0.01
    own = compute_shifts(decoder, prompts, objective, config)
    mean = torch.stack(own.mean(prompts)).mean(0)
    assert mean.norm() < common.vectors.norm()


def test_a_common_shift_is_never_longer_than_the_limit(
    decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    config = ActivationSteeringConfig(step_size=5.0, norm_limit=0.2)
    found = compute_common_shift(decoder, prompts, make_objective(decoder, [PIRATE]), config)
    captured = capture_prompts(decoder, prompts, [decoders.READ_LAYER])
    read = torch.cat(
        [own[0][prompt.withheld :] for prompt, own in zip(prompts, captured, strict=True)]
    )
    assert float(found.vectors.norm()) == pytest.approx(
        0.2 * float(read.norm(dim=-1).median()), rel=1e-3
    )
    assert found.limited


def test_what_the_decoder_does_not_read_is_not_shifted(decoder: Decoder) -> None:
    try:
        prompt = tokenize_prompt(decoder.tokenizer, "Hello", system="You are a pirate")
    except DataError:
        pytest.skip("this template knows no system role")
    assert prompt.withheld > 0
    objective = make_objective(decoder, [PIRATE])
    shifts = compute_shifts(decoder, [prompt], objective, ActivationSteeringConfig())
    assert not shifts.shifts[0][:, : prompt.withheld].any()
    assert shifts.shifts[0][:, prompt.withheld :].any()


def test_smoothed_steps_lower_the_loss_too(decoder: Decoder, prompts: list[SteeringPrompt]) -> None:
    config = ActivationSteeringConfig(steps=6, smoothing=0.3, copies=3)
    objective = make_objective(decoder, [PIRATE])
    together = compute_shifts(decoder, prompts, objective, config)
    alone = compute_shifts(decoder, prompts[:1], objective, config)
    assert all(a < b - 0.01 for a, b in zip(together.after, together.before, strict=True))
    torch.testing.assert_close(alone.shifts[0], together.shifts[0], atol=1e-3, rtol=1e-3)


def test_only_the_last_tokens_are_shifted_where_so_many_are_asked_for(
    decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    config = ActivationSteeringConfig(last_tokens=2)
    shifts = compute_shifts(decoder, prompts, make_objective(decoder, [PIRATE]), config)
    for prompt, shift, mean in zip(prompts, shifts.shifts, shifts.mean(prompts), strict=True):
        assert not shift[:, :-2].any()
        assert shift[:, -2:].any(-1).all()
        torch.testing.assert_close(mean, shift[:, -2:].mean(1))
        assert len(prompt.ids) == shift.shape[1]


def test_the_template_s_own_system_prompt_is_not_read() -> None:
    decoder = decoders.make("llama")
    prompt = tokenize_prompt(decoder.tokenizer, "Hello")
    seen = decoder.tokenizer.decode(prompt.ids[prompt.withheld :])
    assert seen == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("new_tokens", ["none", "mean", "gradient"])
def test_steering_changes_the_reply_and_leaves_no_trace(
    new_tokens: str, decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    plain = write_replies(decoder, prompts, Steering(), WRITE)
    config = ActivationSteeringConfig.model_validate(
        {"step_size": 10.0, "norm_limit": 50.0, "new_tokens": new_tokens}
    )
    steering = Steering(objective=make_objective(decoder, [PIRATE]), config=config)
    steered = write_replies(decoder, prompts, steering, WRITE)
    assert [r.ids for r in steered] != [r.ids for r in plain]
    assert [r.ids for r in write_replies(decoder, prompts, Steering(), WRITE)] == [
        r.ids for r in plain
    ]


@pytest.mark.parametrize("new_tokens", ["none", "mean", "gradient"])
def test_a_batch_steers_as_one_prompt_alone(
    new_tokens: str, decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    config = ActivationSteeringConfig.model_validate(
        {"step_size": 0.3, "norm_limit": 1.0, "new_tokens": new_tokens}
    )
    steering = Steering(objective=make_objective(decoder, [PIRATE]), config=config)
    together = write_replies(decoder, prompts, steering, WRITE)
    alone = [write_replies(decoder, [prompt], steering, WRITE)[0] for prompt in prompts]
    assert [r.ids for r in together] == [r.ids for r in alone]


def test_the_cache_changes_nothing_of_what_is_steered(decoder: Decoder) -> None:
    """The second token is what a pass without a cache over the same shifted prompt gives."""
    prompt = tokenize_prompt(decoder.tokenizer, "Tell me of the sea")
    objective = make_objective(decoder, [PIRATE])
    config = ActivationSteeringConfig(step_size=0.5, norm_limit=2.0, new_tokens="none")
    shifts = compute_shifts(decoder, [prompt], objective, config)
    (written,) = write_replies(
        decoder, [prompt], Steering(objective=objective, config=config), Sampling(max_tokens=2)
    )
    from activation_store.target.load import blocks

    net = decoder.net.get_base_model()
    place, T = shifts.layers[0], len(prompt.ids)

    def shift(module: object, args: object, output: object) -> object:
        hidden = output if isinstance(output, torch.Tensor) else output[0]  # type: ignore[index]
        hidden = hidden.clone()
        hidden[0, :T] += shifts.shifts[0][0]
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])  # type: ignore[index]

    handle = blocks(net)[place].register_forward_hook(shift)
    ids = torch.tensor([[*prompt.ids.tolist(), written.ids[0]]])
    with decoder.without_adapter(), torch.no_grad():
        logits = net(ids, use_cache=False).logits
    handle.remove()
    assert int(logits[0, T - 1].argmax()) == written.ids[0]
    assert int(logits[0, T].argmax()) == written.ids[1]


def test_a_vector_is_saved_and_steers_without_the_decoder(
    tmp_path: Path, decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    objective = make_objective(decoder, [PIRATE])
    config = ActivationSteeringConfig(step_size=1.0, norm_limit=3.0)
    shifts = compute_shifts(decoder, prompts, objective, config)
    mean = torch.stack(shifts.mean(prompts)).mean(0)
    vector = SteeringVector(
        layers=dict(zip(shifts.layers, mean, strict=True)),
        method="gradient",
        target=decoder.binding.target,
        about={"controls": objective.name},
    )
    vector.save(tmp_path / "v.safetensors")
    loaded = SteeringVector.load(tmp_path / "v.safetensors")
    assert loaded.about == {"controls": "pirate"}
    loaded.check_target(decoder.binding.target)
    with pytest.raises(ModelError, match="Make it again"):
        loaded.check_target({"weights": "other"})
    steered = write_replies(decoder, prompts, Steering(vector=loaded.scaled(4.0)), WRITE)
    plain = write_replies(decoder, prompts, Steering(), WRITE)
    assert [r.ids for r in steered] != [r.ids for r in plain]
    nothing = write_replies(decoder, prompts, Steering(vector=loaded.scaled(0.0)), WRITE)
    assert [r.ids for r in nothing] == [r.ids for r in plain]


def test_a_file_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not one, or damaged"):
        SteeringVector.load(path)


def test_weights_have_to_fit_the_controls(decoder: Decoder) -> None:
    with pytest.raises(ConfigError, match="got weights"):
        make_objective(decoder, [PIRATE, KNIGHT], [1.0])
    with pytest.raises(ConfigError, match="not 0"):
        make_objective(decoder, [PIRATE], [0.0])
    with pytest.raises(ConfigError, match="no control"):
        make_objective(decoder, [])


@pytest.mark.parametrize("new_tokens", ["none", "mean", "gradient"])
def test_a_steered_reply_is_the_likeliest_under_the_steered_target(
    new_tokens: str, decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    config = ActivationSteeringConfig.model_validate(
        {"step_size": 10.0, "norm_limit": 50.0, "new_tokens": new_tokens}
    )
    steering = Steering(objective=make_objective(decoder, [PIRATE]), config=config)
    first = Sampling(max_tokens=1)
    steered = [list(r.ids) for r in write_replies(decoder, prompts, steering, first)]
    scores = score_replies(decoder, prompts, steered, steering)
    for other in range(5, 40, 7):
        others = score_replies(decoder, prompts, [[other]] * len(prompts), steering)
        assert all(o <= s + 1e-5 for o, s in zip(others, scores, strict=True))


def test_scores_are_those_of_each_reply_alone(
    decoder: Decoder, prompts: list[SteeringPrompt]
) -> None:
    replies = [[7, 9, 11], [8]]
    vector = SteeringVector(layers={1: torch.full((32,), 0.5)}, method="test")
    for steering in (Steering(), Steering(vector=vector)):
        together = score_replies(decoder, prompts, replies, steering)
        alone = [
            score_replies(decoder, [prompt], [reply], steering)[0]
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        assert together == pytest.approx(alone, rel=1e-4)


def test_an_unsteered_score_is_that_of_a_plain_pass(decoder: Decoder) -> None:
    prompt = tokenize_prompt(decoder.tokenizer, "Tell me")
    ids = torch.tensor([[*prompt.ids.tolist(), 7, 9]])
    with decoder.without_adapter(), torch.no_grad():
        logits = decoder.net.get_base_model()(ids, use_cache=False).logits[0].log_softmax(-1)
    T = len(prompt.ids)
    expected = float(logits[T - 1, 7] + logits[T, 9])
    assert score_replies(decoder, [prompt], [[7, 9]], Steering())[0] == pytest.approx(
        expected, rel=1e-4
    )


def test_a_decoder_of_last_tokens_reads_and_moves_no_others() -> None:
    decoder = decoders.make("llama", tokens="last:3")
    prompt = make_steering_prompt(decoder, "Tell me of the sea")
    (reply,) = follow_by_replies(decoder, [prompt], [prompt], 2)
    assert (len(reply.ids), reply.unread) == (len(prompt.ids) + 2, len(prompt.ids) - 1)
    config = ActivationSteeringConfig(step_size=0.5, norm_limit=2.0)
    objective = make_objective(decoder, [PIRATE])
    (shift,) = compute_shifts(decoder, [reply], objective, config).shifts
    assert not shift[0, :-3].any()
    assert shift[0, -3:].any(-1).all()


def test_what_a_decoder_of_last_tokens_reads_goes_along_with_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = decoders.make("llama", tokens="last:3")
    prompt = make_steering_prompt(decoder, "Tell me of the sea")
    config = ActivationSteeringConfig(new_tokens="gradient")
    read: list[tuple[int, int]] = []

    def spy(decoder: Decoder, readings: list[Reading], turns: object, **options: object) -> object:
        read.extend((reading.n, reading.first_position) for reading in readings)
        return take_gradient(decoder, readings, turns, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(hooks, "take_gradient", spy)
    steering = Steering(objective=make_objective(decoder, [PIRATE]), config=config)
    write_replies(decoder, [prompt], steering, Sampling(max_tokens=3))
    T = len(prompt.ids)
    assert set(read) == {(3, T - 2), (3, T - 1)}
