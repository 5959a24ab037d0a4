"""A model that encodes positions differently past a length: no row follows from its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from activation_store.model_files.files import resolve_model
from core.errors import DataError
from decoder.asking import generate_answers
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.steering.prompts import tokenize_prompt
from decoder.steering.replies import Steering, score_replies
from trainers.steering.language_loss import compute_language_loss

MOST = 160


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    factors = {"short_factor": [1.0] * 4, "long_factor": [7.0] * 4, "rope_theta": 1e4}
    folder = tiny.save(
        tmp_path_factory.mktemp("model") / "long",
        family="phi3",
        rope_parameters={
            "rope_type": "longrope", "original_max_position_embeddings": MOST, **factors
        },
        original_max_position_embeddings=MOST,
    )  # fmt: skip
    model = resolve_model(str(folder))
    return Decoder.create(
        model,
        config=DecoderConfig(preamble="I"),
        lora=LoraSettings(rank=2, targets=("o_proj",)),
        binding=Binding(read_layer=1, target=model.digests(), model=model.ref),
        dtype="float32",
        device=torch.device("cpu"),
        seed=0,
    )


def reading(n: int) -> Reading:
    vectors = np.random.default_rng(n).standard_normal((n, 32)).astype(np.float32)
    return Reading(vectors, n, 0)


def test_a_row_beside_longer_ones_is_scored_as_alone(decoder: Decoder) -> None:
    rows, turn = [reading(n) for n in (3, 9)], decoder.prompt.turn("Who?", "I.")
    together = compute_turn_losses(decoder, rows, [[turn], [turn]])
    alone = [compute_turn_losses(decoder, [row], [[turn]])[0] for row in rows]
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_a_row_past_the_length_is_refused(
    packed: bool, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "can_pack", packed)
    turn = decoder.prompt.turn("Who?", "I.")
    with pytest.raises(DataError, match=rf"positions differently past {MOST}.*dump.max_tokens"):
        compute_turn_losses(decoder, [reading(MOST)], [[turn]])


def test_an_answer_that_could_pass_the_length_is_refused(decoder: Decoder) -> None:
    assert len(generate_answers(decoder, [reading(3)], ["Who?"], max_tokens=4)) == 1
    with pytest.raises(DataError, match=f"past {MOST}"):
        generate_answers(decoder, [reading(3)], ["Who?"], max_tokens=MOST)


def test_a_reply_past_the_length_is_not_scored(decoder: Decoder) -> None:
    prompt = tokenize_prompt(decoder.tokenizer, "Hi")
    with pytest.raises(DataError, match=f"past {MOST}"):
        score_replies(decoder, [prompt], [[5] * MOST], Steering())


def test_the_language_loss_of_texts_on_both_sides_is_that_of_each_alone(decoder: Decoder) -> None:
    net = decoder.net.get_base_model()
    texts = [np.arange(5, 5 + n) for n in (20, MOST + 40, 30)]
    with torch.no_grad():
        alone = [float(compute_language_loss(net, [own])) for own in texts]
        together = float(compute_language_loss(net, texts))
    tokens = [len(own) - 1 for own in texts]
    assert together == pytest.approx(np.average(alone, weights=tokens), abs=1e-4)
