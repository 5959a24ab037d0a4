"""Replies of models that think, whatever their template does to thoughts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
from thinking_templates import THINKING, ThinkingModel

from activation_store.model_files.files import resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.target import reply_batches as module
from activation_store.target.config import CompleteConfig
from activation_store.target.generation import up_to_end
from activation_store.target.load import load_tokenizer
from activation_store.target.reply_text import ReplyReader, TargetReply
from activation_store.tokens.config import TemplateConfig
from activation_store.tokens.tokens import end_of_turn, tokenize
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from decoder.config import DecoderConfig
from decoder.question_prompt import DecoderPrompt

NAMES = sorted(THINKING)


def tokenizer_of(model: ThinkingModel) -> Any:
    tokenizer = tiny.tokenizer(model.template)
    tokenizer.latentqa_template = TemplateConfig(template_args=model.args)
    return tokenizer


def reply(tokenizer: Any, written: str, view: Any = "stimulus", said: str = "") -> TargetReply:
    """Read one reply to a stimulus, or to `said` in its place."""
    reader, row = ReplyReader(tokenizer), stores.conversation(1, view)
    last = replace(row.messages[-1], content=said or row.messages[-1].content)
    row = replace(row, messages=(*row.messages[:-1], last))
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    (found,) = reader.replies(reader.prompts([row]), [up_to_end(ids, reader.ends)])
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", ["stimulus", "system"])
def test_a_thought_that_the_template_writes_otherwise_costs_no_reply(name: str, view: str) -> None:
    model = THINKING[name]
    tokenizer = tokenizer_of(model)
    found = reply(tokenizer, model.written, view)
    assert (found.reason, found.text, found.finished) == ("", model.text, True)
    assert tokenizer.decode(found.ids) == model.written


@pytest.mark.parametrize("name", NAMES)
def test_the_decoders_prompt_is_built_of_each(name: str) -> None:
    tokenizer = tokenizer_of(THINKING[name])
    prompt = DecoderPrompt(tokenizer, DecoderConfig(normalisation="none"))
    assert prompt.end_of_turn == end_of_turn(tokenizer)
    asked, answered = prompt.turn("Who?", None), prompt.turn("Who?", "A pirate.")
    assert (answered.ids[: len(asked.ids)] == asked.ids).all()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("magistral", "[THINK]Well"),
        ("exaone deep", "Well"),
        ("deepseek 3.1", "Well.</think><|end_of_sentence|>"),
        ("gemma 4", "<|channel>thought\nWell"),
        ("command a", "<|START_THINKING|>Well.<|END_THINKING|></s>"),
    ],
)
def test_a_thought_without_an_answer_is_none(name: str, written: str) -> None:
    assert reply(tokenizer_of(THINKING[name]), written).reason == "thought"


def test_a_template_that_changes_the_answer_keeps_no_reply() -> None:
    loud = THINKING["exaone deep"]
    template = loud.template.replace(".lstrip('\n')", ".lstrip('\n') | upper")
    assert template != loud.template
    tiny.CONTROL_TOKENS[template] = loud.tokens
    tokenizer = tiny.tokenizer(template)
    assert reply(tokenizer, loud.written, "stimulus").reason in ("rendering", "template")


def test_a_stimulus_that_names_a_thoughts_mark_opens_none() -> None:
    tokenizer = tokenizer_of(THINKING["deepseek 3.1, off"])
    found = reply(tokenizer, "It begins", said="What is <think>?")
    assert (found.reason, found.text, found.finished) == ("", "It begins", False)


def test_replies_beside_their_thought_are_dumped_as_they_were_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinking = THINKING["magistral"]

    def generate(self: Any, prompts: list[Any], seed: int, temperature: float) -> list[list[int]]:
        ids = self._reader.tokenizer(thinking.written, add_special_tokens=False)["input_ids"]
        return [ids for _ in prompts]

    monkeypatch.setattr(module.ReplyWriter, "_generate", generate)
    model = resolve_model(str(tiny.save(tmp_path / "model", template=thinking.template)))
    given = stores.table(tmp_path / "in", [stores.conversation(1, "stimulus")])
    stores.reply(given, tmp_path, model, CompleteConfig(max_tokens=64))
    (_, row) = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    assert row.messages[-1].content == "Aye."
    stores.fill(tmp_path / "out", tmp_path / "store", model)
    store, tokenizer = ActivationStore(tmp_path / "store"), load_tokenizer(model)
    before = tokenize(tokenizer, row.messages[:-1]).ids
    tokens = store.tokens(row.example_id)
    assert tokenizer.decode(tokens[len(before) :]) == thinking.written
