"""Asking: greedy answers with the cache, one by one and in batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import stores
import tiny
import torch

from activation_store.read.reader import ActivationStore
from core.errors import DataError
from core.records.tables import VIEWS, Message, View
from decoder import asking
from decoder.asking import Answer, generate_answers
from decoder.batch import Batch, make_batch
from decoder.forward import compute_prefix_cache
from decoder.model import Decoder
from decoder.question_prompt import Turn
from decoder.reading import Reading
from decoder.sources.target_run import capture
from decoder.visible_tokens import count_withheld, read_visible

QUESTIONS = ["Who?", "Why so?", "What does it love most?", "Who?", "Is it you"]
ROWS = [
    decoders.reading(4, 0),
    decoders.reading(21, 33),
    decoders.reading(1, 80),
    decoders.reading(13, 2, seed=5),
    decoders.reading(4, 0, seed=9),
]


def slowly_ids(
    decoder: Decoder, reading: Reading, question: str, max_tokens: int
) -> tuple[list[int], list[float]]:
    """Write each token by recomputing the whole sequence, with no cache; return their chances."""
    prompt = decoder.prompt
    prefix = prompt.prefix(reading)
    asked = prompt.turn(question, None)
    ids = [*prefix.ids.tolist(), *asked.ids.tolist()]
    start, chances = len(ids), []
    places = torch.from_numpy(prefix.places)
    vectors = None if reading.vectors is None else torch.from_numpy(reading.vectors)
    while len(ids) - start < max_tokens:
        with torch.no_grad(), decoder.injection(places, vectors):
            logits = decoder.net(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                position_ids=torch.from_numpy(prefix.positions(0, len(ids)))[None],
                use_cache=False,
            ).logits[0, -1]
        chance, best = logits.log_softmax(-1).max(-1)
        chances.append(float(chance))
        ids.append(int(best))
        if ids[-1] == prompt.end_of_turn:
            break
    return ids[start:], chances


def slowly(decoder: Decoder, reading: Reading, question: str, max_tokens: int) -> Answer:
    ids, chances = slowly_ids(decoder, reading, question, max_tokens)
    finished = ids[-1] == decoder.prompt.end_of_turn
    words = ids[: len(ids) - finished]
    text = decoder.tokenizer.decode(words, skip_special_tokens=True).strip()
    return Answer(text, float(np.mean(chances)), finished)


def assert_same(found: Answer, expected: Answer) -> None:
    assert (found.text, found.finished) == (expected.text, expected.finished)
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-4)


@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_the_cache_changes_no_answer(family: str) -> None:
    decoder = decoders.make(family, nudge=0.1)
    found = generate_answers(decoder, ROWS, QUESTIONS, max_tokens=12)
    for got, reading, question in zip(found, ROWS, QUESTIONS, strict=True):
        assert_same(got, slowly(decoder, reading, question, 12))
    assert len({round(a.log_probability, 3) for a in found}) > 1


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_batch_of_different_questions_is_one_at_a_time(family: str) -> None:
    decoder = decoders.make(family, nudge=0.1)
    together = generate_answers(decoder, ROWS, QUESTIONS, max_tokens=10)
    for got, reading, question in zip(together, ROWS, QUESTIONS, strict=True):
        (alone,) = generate_answers(decoder, [reading], [question], max_tokens=10)
        assert_same(got, alone)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_questions_about_one_reading_share_its_prefix(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoders.make(family, nudge=0.1)
    rows = [ROWS[1], ROWS[3], ROWS[1], ROWS[1], ROWS[3]]
    expected = [slowly(decoder, r, q, 10) for r, q in zip(rows, QUESTIONS, strict=True)]
    prefixes = []

    def counted(net: Any, injection: Any, batch: Batch) -> Any:
        prefixes.append(batch)
        return compute_prefix_cache(net, injection, batch)

    monkeypatch.setattr(asking, "compute_prefix_cache", counted)
    for got, wanted in zip(
        generate_answers(decoder, rows, QUESTIONS, max_tokens=10), expected, strict=True
    ):
        assert_same(got, wanted)
    (batch,) = prefixes
    assert len(batch["prefix_ids"]) == 2


def test_without_activations_the_placeholders_speak() -> None:
    decoder = decoders.make(nudge=0.1)
    bare = [decoders.reading(r.n, r.first_position, vectors=False) for r in ROWS]
    found = generate_answers(decoder, bare, QUESTIONS, max_tokens=8)
    for got, reading, question in zip(found, bare, QUESTIONS, strict=True):
        assert_same(got, slowly(decoder, reading, question, 8))


def favour(decoder: Decoder, token: int, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Make `token` the likeliest of each answer's word number `after` and on."""
    plain, calls = decoder.net.forward, []

    def forward(*args: object, **kwargs: object) -> object:
        out = plain(*args, **kwargs)
        calls.append(1)
        if len(calls) > after + 1:  # the first call is the prefix
            out.logits[..., token] += 1000
        return out

    monkeypatch.setattr(decoder.net, "forward", forward)


def test_an_answer_ends_with_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoders.make()
    favour(decoder, decoder.prompt.end_of_turn, monkeypatch, after=3)
    (found,) = generate_answers(decoder, ROWS[:1], QUESTIONS[:1], max_tokens=30)
    assert found.finished
    assert len(found.text) <= 3


def test_an_answer_at_once_over_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoders.make()
    favour(decoder, decoder.prompt.end_of_turn, monkeypatch, after=0)
    (found,) = generate_answers(decoder, ROWS[:1], QUESTIONS[:1])
    assert (found.text, found.finished) == ("", True)
    assert found.log_probability == pytest.approx(0.0, abs=1e-3)


def test_an_answer_that_is_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoders.make()
    letter = decoder.tokenizer("a", add_special_tokens=False)["input_ids"][0]
    favour(decoder, letter, monkeypatch, after=0)
    (found,) = generate_answers(decoder, ROWS[:1], QUESTIONS[:1], max_tokens=5)
    assert (found.text, found.finished) == ("aaaaa", False)


def test_an_answer_has_the_chance_that_the_loss_has() -> None:
    decoder = decoders.make(nudge=0.1)
    (found,) = generate_answers(decoder, ROWS[:1], QUESTIONS[:1], max_tokens=6)
    prompt = decoder.prompt
    (row,), question = ROWS[:1], QUESTIONS[0]
    asked = prompt.turn(question, None)
    # the same words, scored in one pass
    words, _ = slowly_ids(decoder, row, question, 6)
    turn = Turn(
        np.concatenate([asked.ids, words]),
        np.arange(len(asked.ids) + len(words)) >= len(asked.ids),
    )
    from decoder.forward import compute_answer_losses

    with torch.no_grad():
        loss = compute_answer_losses(
            decoder.net, decoder.injection, make_batch(prompt, [row], [[turn]])
        )
    assert float(loss[0]) == pytest.approx(-found.log_probability, abs=1e-4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a store of the decoder's own target, at its read layer, as float32."""
    torch.set_num_threads(1)
    rows = stores.table(tmp_path_factory.mktemp("rows"), stores.conversations(2))
    out = tmp_path_factory.mktemp("store")
    stores.fill(rows, out, decoders.model(), layers=[decoders.READ_LAYER], store_dtype="float32")
    return out


@pytest.mark.parametrize("masking", [True, False])
@pytest.mark.parametrize("view", VIEWS)
def test_a_reading_is_what_the_store_holds_of_the_same_conversation(
    view: View, masking: bool, store: Path
) -> None:
    decoder = decoders.make(masking=masking, nudge=0.3)  # a trained adapter must not show
    opened = ActivationStore(store)
    for conversation in stores.conversations(2):
        if conversation.view != view:
            continue
        live = decoders.capture_reading(decoder, conversation.messages, view=view)
        kept = read_visible(
            opened, conversation.example_id, view, decoders.READ_LAYER, masking=masking
        )
        assert (live.n, live.first_position) == (kept.n, kept.first_position)
        assert live.vectors is not None
        assert kept.vectors is not None
        np.testing.assert_allclose(live.vectors, kept.vectors, rtol=1e-5, atol=1e-5)
        whole = opened.place(conversation.example_id)
        masked = masking and view != "control"
        assert kept.first_position == (whole.withheld if masked else 0)
        assert kept.n == whole.n_tokens - kept.first_position


def test_view_control_is_never_masked() -> None:
    assert count_withheld("control", 7, masking=True) == 0
    assert count_withheld("system", 7, masking=True) == 7
    assert count_withheld("system", 7, masking=False) == 0


def test_a_reading_of_what_the_template_refuses_is_an_error() -> None:
    decoder = decoders.make("gemma")
    said = stores.messages("system", "You are a pirate.", "Hi", "")
    with pytest.raises(DataError, match="System role not supported"):
        capture(decoder, [said], [decoders.READ_LAYER])


def test_a_reading_with_nothing_left_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = ActivationStore(store)
    example, placed = next(iter(opened.index.items()))
    hidden = replace(placed, withheld=placed.n_tokens)
    monkeypatch.setattr(opened, "index", {example: hidden})
    with pytest.raises(DataError, match="masking leaves no activation to read"):
        read_visible(opened, example, "system", decoders.READ_LAYER, masking=True)


def test_the_answer_depends_on_the_activations() -> None:
    decoder = decoders.make(nudge=0.1)
    rows = [decoders.reading(9, 0, seed=i) for i in range(6)]
    found = generate_answers(decoder, rows, ["Who?"] * 6, max_tokens=8)
    assert len({a.text for a in found}) > 1


def test_an_answer_tells_its_tokens_and_their_chances() -> None:
    decoder = decoders.make(nudge=0.1)
    for found in generate_answers(decoder, ROWS, QUESTIONS, max_tokens=6):
        special = decoder.tokenizer.all_special_tokens
        words = [token for token in found.tokens if token not in special]
        assert "".join(words).strip() == found.text
        assert np.mean(found.token_log_probabilities) == pytest.approx(found.log_probability)


def test_drawn_answers_differ_and_a_seed_brings_them_back() -> None:
    decoder = decoders.make(nudge=0.1)
    rows, asked = [ROWS[0]] * 8, ["Who?"] * 8

    def drawn(seed: int, temperature: float = 1.0) -> list[str]:
        found = generate_answers(
            decoder, rows, asked, max_tokens=6, temperature=temperature, seed=seed
        )
        return [own.text for own in found]

    assert len(set(drawn(1))) > 1
    assert drawn(1) == drawn(1) != drawn(2)
    (likeliest,) = generate_answers(decoder, ROWS[:1], ["Who?"], max_tokens=6)
    assert set(drawn(3, temperature=1e-3)) == {likeliest.text}


def test_conversations_together_are_as_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoder.sources.target_run._BATCH_TOKENS", 200)
    decoder = decoders.make()
    said = [row.messages for row in stores.conversations(3)]
    together = capture(decoder, said, [0, 2])
    for messages, found in zip(said, together, strict=True):
        (alone,) = capture(decoder, [messages], [0, 2])
        for layer in (0, 2):
            np.testing.assert_allclose(found.vectors[layer], alone.vectors[layer], atol=1e-5)


def test_asking_leaves_the_decoder_as_it_was() -> None:
    decoder = decoders.make()
    before = {name: p.clone() for name, p in decoder.net.named_parameters()}
    generate_answers(decoder, ROWS, QUESTIONS, max_tokens=3)
    said = (Message(role="user", content="Ahoy", segment="control"),)
    capture(decoder, [said], [decoders.READ_LAYER])
    assert not any(m._forward_hooks for m in decoder.net.modules())
    assert all(torch.equal(before[n], p) for n, p in decoder.net.named_parameters())
    assert decoder.tokenizer.chat_template == tiny.CHATML
