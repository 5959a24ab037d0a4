"""Families of chat templates from end to end: rows dumped, replies written, a decoder asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
import tiny
import torch
from chat_templates import FAMILIES, GPT_OSS, LLAMA31, QWEN3, R1, SMOLLM3, Family

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.target import reply_batches as module
from activation_store.target.config import CompleteConfig
from activation_store.target.generation import up_to_end
from activation_store.target.load import load_tokenizer
from activation_store.target.swaps import make_swaps
from activation_store.tokens.content_spans import locate
from activation_store.tokens.template import render
from activation_store.tokens.tokens import COMPLETION_IDS, end_of_turn, tokenize
from core.errors import DataError
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    read_dropped,
)
from core.records.tables import VIEWS, Conversation, Message
from decoder.asking import generate_answers
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from decoder.reading import Reading

NAMES = sorted(FAMILIES)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    """Return a tiny model of each family."""
    folder = tmp_path_factory.mktemp("families")
    found = {}
    for name, family in FAMILIES.items():
        path = tiny.save(
            folder / name.replace(", ", "-").replace(" ", "-"), template=family.template
        )
        found[name] = resolve_model(str(path), template=family.config)
    return found


def tokenizer_of(family: Family, **settings: Any) -> Any:
    tokenizer = tiny.tokenizer(family.template)
    tokenizer.latentqa_template = family.config.model_copy(update=settings)
    return tokenizer


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_dumped_or_named(name: str, models: dict[str, ModelFiles], tmp_path: Path) -> None:
    family, model = FAMILIES[name], models[name]
    rows = {view: stores.conversation(1, view) for view in VIEWS}
    result = stores.fill(stores.table(tmp_path / "rows", rows.values()), tmp_path / "out", model)
    store = ActivationStore(tmp_path / "out")
    tokenizer = load_tokenizer(model)
    for view, row in rows.items():
        assert (row.example_id in store) == (view not in family.refused)
        if view in family.refused:
            continue
        tokens, segments = store.tokens(row.example_id), store.segments(row.example_id)
        for segment, code in (("control", 1), ("stimulus", 2), ("completion", 3)):
            said = "".join(m.content for m in row.messages if m.segment == segment)
            assert tokenizer.decode(tokens[segments == code]) == said, (view, segment)
        if view != "stimulus_completion":
            assert tokenizer.decode(tokens).endswith(family.tail)
    dropped = read_dropped(tmp_path / "out" / DROPPED_FILE)
    assert result.dropped == ({"template": len(family.refused)} if family.refused else {})
    for one, words in zip(dropped, family.refused.values(), strict=True):
        assert words in one.detail


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_of_the_family_is_asked(name: str, models: dict[str, ModelFiles]) -> None:
    model = models[name]
    decoder = Decoder.create(
        model,
        config=DecoderConfig(normalisation="none"),
        lora=LoraSettings(rank=2),
        binding=Binding(read_layer=1, target=model.digests(), model=model.ref),
        dtype="float32",
        device=CPU,
        seed=0,
    )
    vectors = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    (answer,) = generate_answers(decoder, [Reading(vectors, 5, 0)], ["What is it?"], max_tokens=4)
    assert answer.finished or len(answer.tokens) == 4
    assert decoder.prompt.end_of_turn == end_of_turn(decoder.tokenizer)


def replied(
    folder: Path, model: ModelFiles, numbers: Iterable[int]
) -> tuple[list[Conversation], dict[str, int]]:
    """Return the completed rows, and what was dropped, of the stimuli of these numbers."""
    rows = [stores.conversation(i, "stimulus") for i in numbers]
    given = stores.table(folder / "in", rows)
    result = stores.reply(given, folder, model, CompleteConfig(max_tokens=6))
    return read_conversations(folder / "out" / CONVERSATIONS_FILE)[len(rows) :], result.dropped


@pytest.mark.parametrize("name", NAMES)
def test_replies_are_dumped_as_the_ids_that_were_generated_or_counted_out(
    name: str, models: dict[str, ModelFiles], tmp_path: Path
) -> None:
    family, model = FAMILIES[name], models[name]
    made, dropped = replied(tmp_path, model, range(5))
    assert len(made) + sum(dropped.values()) == 5
    assert dropped.keys() <= {"rendering", "thought", "empty"}
    if family.unlike:
        assert not made
        return
    if not made:
        pytest.skip("this random model wrote control tokens alone")
    store_folder = tmp_path / "store"
    stores.fill(tmp_path / "out", store_folder, model)
    store, tokenizer = ActivationStore(store_folder), load_tokenizer(model)
    for row in made:
        prompt = tokenize(tokenizer, row.messages[:-1])
        expected = [*prompt.ids.tolist(), *row.provenance[COMPLETION_IDS]]
        assert store.tokens(row.example_id).tolist() == expected


def scripted(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the target write `text`."""

    def generate(
        self: Any, prompts: list[list[int]], seed: int, temperature: float
    ) -> list[list[int]]:
        reader = self._reader
        ids = reader.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [up_to_end(ids, reader.ends) for _ in prompts]

    monkeypatch.setattr(module.ReplyWriter, "_generate", generate)


@pytest.mark.parametrize(
    ("name", "written", "content"),
    [
        ("qwen3", "<think>\nWell.\n</think>\n\nAye.<|im_end|>", "<think>\nWell.\n</think>\n\nAye."),
        ("qwen3, no thought", "Aye.<|im_end|>", "Aye."),
        ("gpt-oss", "<|channel|>final<|message|>Aye.<|return|>", "Aye."),
        # its thought is a message of its own, which the template leaves out
        (
            "gpt-oss",
            "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant"
            "<|channel|>final<|message|>Aye.<|return|>",
            "Aye.",
        ),
        ("llama2", " Aye. </s>", "Aye. "),
        ("llama3", "Aye.<|eot_id|>and more", "Aye."),
        ("smollm3", "Aye.<|im_end|>", "Aye."),
        # the target ends its turn by beginning the user's, which the template does not write here
        ("glm4", "\nAye.<|user|>\nand more", "Aye."),
        # the template writes what follows the thought alone; the target saw both
        (
            "deepseek-r1",
            "Well.\n</think>\n\nAye.<|end_of_sentence|>",
            "<think>\nWell.\n</think>\n\nAye.",
        ),
    ],
)
def test_a_finished_reply_is_kept_with_its_ids(
    name: str,
    written: str,
    content: str,
    models: dict[str, ModelFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, written)
    (row,), dropped = replied(tmp_path, models[name], [1])
    assert dropped == {}
    assert row.messages[-1].content == content
    assert row.flags == ()
    tokenizer = load_tokenizer(models[name])
    ids = row.provenance[COMPLETION_IDS]
    assert written.startswith(tokenizer.decode(ids))
    assert ids[-1] in (end_of_turn(tokenizer), tokenizer.eos_token_id)


def test_a_thought_that_the_template_leaves_out_is_dumped_as_the_target_saw_it(
    models: dict[str, ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, "Well.\n</think>\n\nAye.<|end_of_sentence|>")
    model = models["deepseek-r1"]
    replies, _ = replied(tmp_path, model, [1, 2])
    stores.fill(tmp_path / "out", tmp_path / "store", model, swapped=["train"])
    store, tokenizer = ActivationStore(tmp_path / "store"), load_tokenizer(model)
    hidden = {row.example_id: store.place(row.example_id).withheld for row in replies}
    swaps = make_swaps(replies, hidden, ["train"])
    assert len(swaps) == len(replies) == 2
    for example in [row.example_id for row in replies] + [s.swapped.example_id for s in swaps]:
        seen = tokenizer.decode(store.tokens(example))
        assert seen.endswith("<|Assistant|><think>\nWell.\n</think>\n\nAye.<|end_of_sentence|>")


@pytest.mark.parametrize(
    ("name", "written", "reason"),
    [
        ("qwen3", "<think>\nWell", "thought"),
        ("deepseek-r1", "Well", "thought"),
        ("qwen3", "Aye.<|im_end|>", "rendering"),  # the template writes an empty thought before it
        ("deepseek-r1", "Well.\n</think>\n<|end_of_sentence|>", "thought"),  # no answer to it
        ("deepseek-r1", "Well.<|end_of_sentence|>", "thought"),
        ("qwen3", "<think>\nWell.\n</think>\n\n<|im_end|>", "thought"),
        ("gpt-oss", "<|channel|>analysis<|message|>Well.<|return|>", "thought"),
        ("gpt-oss", "Hm.<|channel|>final<|message|>Aye.<|return|>", "rendering"),
        ("qwen2.5", "<|im_end|>", "empty"),
        ("qwen2.5", "<seed:think>Well", "thought"),
        ("qwen2.5", "[THINK]Well", "thought"),
        ("qwen2.5", "◁think▷Well", "thought"),
        ("qwen2.5", "<|START_THINKING|>Well", "thought"),
        ("gpt-oss", "<|channel|>analysis<|message|>Well", "thought"),
    ],
)
def test_a_reply_that_cannot_be_written_as_it_was_seen_is_counted_out(
    name: str,
    written: str,
    reason: str,
    models: dict[str, ModelFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, written)
    made, dropped = replied(tmp_path, models[name], [1])
    assert (made, dropped) == ([], {reason: 1})


def test_settings_of_generation_that_the_model_brings_change_nothing_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny.save(tmp_path / "model")
    model = resolve_model(str(folder))
    before, _ = replied(tmp_path / "before", model, range(5))
    (folder / "generation_config.json").write_text(
        '{"repetition_penalty": 9.0, "do_sample": true, "temperature": 2.0, "top_k": 3,'
        ' "eos_token_id": [5, 6, 7, 8], "max_new_tokens": 1, "bad_words_ids": [[9]],'
        ' "num_beams": 4, "no_repeat_ngram_size": 1, "min_new_tokens": 5, "stop_strings": "a",'
        f' "forced_eos_token_id": 9, "suppress_tokens": {list(range(10, 300))}}}'
    )
    after, _ = replied(tmp_path / "after", resolve_model(str(folder)), range(5))
    assert after == before
    told = [one.message for one in caplog.records if "generation_config.json" in one.message]
    assert len(told) == 1  # none of the file that came with the model
    for named in (
        "num_beams 4",
        "no_repeat_ngram_size 1",
        "suppress_tokens [10, 11",
        "stop_strings",
    ):
        assert named in told[0]
    assert "max_new_tokens" not in told[0]
    assert len(told[0]) < 600


def test_a_turn_ends_as_the_template_says_whatever_eos_is(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(FAMILIES["llama3"].template)
    assert tokenizer.eos_token == "</s>"
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|eot_id|>")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["\n", " \n\n", ""])
@pytest.mark.parametrize("begin", ["", "\n", "  "])
def test_white_space_at_the_ends_of_contents_is_kept_or_stripped_by_message(
    name: str, begin: str, end: str
) -> None:
    family = FAMILIES[name]
    messages = [
        Message(role="system", content=f"{begin}Be terse.{end}", segment="control"),
        Message(role="user", content=f"{begin}Who are you?{end}", segment="stimulus"),
        Message(role="assistant", content=f"{begin}Me.{end}", segment="completion"),
    ]
    tokenizer = tokenizer_of(family)
    if family.refused or name == "mistral":  # its system text stands in a last user's message
        messages = messages[1:]
    found = tokenize(tokenizer, messages)
    for code, said in ((2, "Who are you?"), (3, "Me.")):
        own = tokenizer.decode(found.ids[found.segments == code])
        assert own.strip() == said
        assert own in f"{begin}{said}{end}"


def test_a_system_text_that_the_template_leaves_out_is_refused() -> None:
    messages = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
    ]
    with pytest.raises(DataError, match="cuts, drops or changes a message"):
        locate(tokenizer_of(FAMILIES["mistral"]), messages, generation=False)
    joined = tokenizer_of(FAMILIES["mistral"], system_role="join")
    text, spans = locate(joined, messages, generation=False)
    assert [text[a:b] for a, b in spans] == ["Be terse.", "Who?", "Me."]


def test_a_joined_system_text_is_a_segment_of_its_own() -> None:
    tokenizer = tokenizer_of(FAMILIES["gemma2, joined"])
    messages = [{"role": "system", "content": "Be terse. "}, {"role": "user", "content": "Who?"}]
    text, spans = locate(tokenizer, messages, generation=True)
    assert [text[a:b] for a, b in spans] == ["Be terse. ", "Who?"]
    assert "<start_of_turn>user\nBe terse. \n\nWho?<end_of_turn>" in text


def test_a_system_text_that_cannot_be_joined_is_refused_in_the_templates_words() -> None:
    tokenizer = tokenizer_of(FAMILIES["gemma2, joined"])
    with pytest.raises(DataError, match="System role not supported"):
        locate(tokenizer, [{"role": "system", "content": "Be terse."}], generation=True)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LLAMA31, "Today Date: 01 Jan 2025\n"),
        (GPT_OSS, "Current date: 2025-01-01\n"),
        (SMOLLM3, "Today Date: 1 January 2025\n"),
    ],
)
def test_a_dated_prompt_is_the_same_every_day(template: str, words: str) -> None:
    said = [{"role": "user", "content": "Hi"}]
    assert words in render(tiny.tokenizer(template), said, generation=True)


@pytest.mark.parametrize(
    ("family", "arguments", "words"),
    [
        ("llama3.1", {"date_string": "4 May 2031"}, "Today Date: 4 May 2031"),
        ("gpt-oss", {"reasoning_effort": "low"}, "Reasoning: low"),
        ("qwen3", {"enable_thinking": False}, "<think>\n\n</think>"),
    ],
)
def test_arguments_reach_the_template(family: str, arguments: dict[str, Any], words: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[family], template_args=arguments)
    assert words in render(tokenizer, [{"role": "user", "content": "Hi"}], generation=True)


def test_templates_differ_in_what_they_do_to_thoughts() -> None:
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nb</think>c"},
    ]
    kept, cut = (render(tiny.tokenizer(t), said, generation=False) for t in (QWEN3, R1))
    assert "b" in kept.partition("assistant")[2]
    assert "<think>" not in cut
