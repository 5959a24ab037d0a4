"""Calls of tools on their way through a chat template: their segments, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
from tool_turns import TOOLS_CHATML, TRANSCRIPT, WEATHER, call, line

from activation_store.model_files.files import resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.tokens.tokens import SEGMENT_CODES, Tokens, tokenize
from core.errors import DataError
from core.records.table_files import DROPPED_FILE, read_dropped
from core.records.tables import Message, example_id
from generators.exchange.conversation_files import read_own_rows

CALLS = (
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "at": 9}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Bergen", "at": 7}}\n</tool_call>'
)


@pytest.fixture
def tokenizer() -> Any:
    return tiny.tokenizer(TOOLS_CHATML)


def imported(folder: Path, messages: Any = TRANSCRIPT, **more: Any) -> tuple[Message, ...]:
    """`messages` as the import makes them."""
    file = folder / "own.jsonl"
    file.write_text(json.dumps(line(messages, **more)))
    ((own,), dropped) = read_own_rows(file)
    assert not dropped
    return own.row.messages


def text_of(tokenizer: Any, tokens: Tokens, segment: str) -> str:
    return str(tokenizer.decode(tokens.ids[tokens.segments == SEGMENT_CODES[segment]]))


def test_a_call_belongs_to_the_segment_of_its_message(tmp_path: Path, tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, imported(tmp_path))
    assert text_of(tokenizer, tokens, "control") == "You are terse."
    assert text_of(tokenizer, tokens, "stimulus") == (
        "Weather in Oslo and Bergen?" + CALLS + '{"rain": true}{"rain": false}'
    )
    assert text_of(tokenizer, tokens, "completion") == "Oslo: rain."


def test_a_content_before_the_calls_belongs_to_it_as_well(tmp_path: Path, tokenizer: Any) -> None:
    last = TRANSCRIPT[2] | {"content": "Let me see.", "segment": "completion"}
    tokens = tokenize(tokenizer, imported(tmp_path, [*TRANSCRIPT[:2], last]))
    assert text_of(tokenizer, tokens, "completion") == "Let me see.\n" + CALLS
    # it ends with the call: nothing is asked of the assistant
    assert not tokenizer.decode(tokens.ids).endswith("assistant\n")


def test_the_tokens_are_those_of_the_templates_own_rendering(
    tmp_path: Path, tokenizer: Any
) -> None:
    spoken: list[dict[str, Any]] = [
        {k: v for k, v in m.items() if k != "segment" and v is not None} for m in TRANSCRIPT
    ]
    spoken[2] |= {
        "content": "",
        "tool_calls": [call({"city": "Oslo", "at": 9}), call({"city": "Bergen", "at": 7})],
    }
    text = tokenizer.apply_chat_template(spoken, tools=[WEATHER], tokenize=False)
    tokens = tokenize(tokenizer, imported(tmp_path, tools=[WEATHER]))
    assert tokens.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_template_that_wants_a_call_before_each_reply_of_a_tool_gives_the_same_spans(
    tmp_path: Path, tokenizer: Any
) -> None:
    strict = (
        "{% for message in messages %}{% if message['role'] == 'tool' and "
        "messages[loop.index0 - 1]['role'] != 'tool' and "
        "not messages[loop.index0 - 1]['tool_calls'] %}"
        "{{ raise_exception('a reply without a call') }}{% endif %}{% endfor %}"
    )
    messages = imported(tmp_path)
    plain, found = (
        tokenize(tokenizer, messages),
        tokenize(tiny.tokenizer(strict + TOOLS_CHATML), messages),
    )
    assert found.ids.tolist() == plain.ids.tolist()
    assert found.segments.tolist() == plain.segments.tolist()


def test_rows_with_tools_are_written_by_the_template_for_tools(
    tmp_path: Path, tokenizer: Any
) -> None:
    messages = imported(tmp_path, tools=[WEATHER])
    expected = tokenize(tokenizer, messages)
    tokenizer.chat_template = {"default": tiny.CHATML, "tool_use": TOOLS_CHATML}
    found = tokenize(tokenizer, messages)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.segments.tolist() == expected.segments.tolist()


def test_white_space_that_only_a_plain_turn_begins_with_is_none_of_a_call(
    tmp_path: Path, tokenizer: Any
) -> None:
    spaced = TOOLS_CHATML.replace(
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}",
        "{{ '<|im_start|>' + message['role'] + '\n ' + message['content'] + '<|im_end|>\n' }}",
    )
    assert spaced != TOOLS_CHATML
    tokens = tokenize(tiny.tokenizer(spaced), imported(tmp_path))
    assert CALLS + '{"rain": true}' in text_of(tokenizer, tokens, "stimulus")


def test_masking_withholds_the_control_with_the_tools_that_are_offered_and_no_call(
    tmp_path: Path, tokenizer: Any
) -> None:
    tokens = tokenize(tokenizer, imported(tmp_path, tools=[WEATHER]))
    hidden = tokenizer.decode(tokens.ids[: tokens.withheld])
    shown = tokenizer.decode(tokens.ids[tokens.withheld :])
    assert "You are terse." in hidden
    assert "Tells the weather." in hidden
    assert shown.startswith("<|im_start|>user\nWeather in Oslo and Bergen?")
    assert CALLS in shown


def test_masking_stops_before_a_call_that_follows_the_control(
    tmp_path: Path, tokenizer: Any
) -> None:
    messages = [
        TRANSCRIPT[1] | {"segment": "control"},
        TRANSCRIPT[2] | {"segment": "completion"},
    ]
    tokens = tokenize(tokenizer, imported(tmp_path, messages))
    assert tokenizer.decode(tokens.ids[tokens.withheld :]).startswith(
        "<|im_start|>assistant\n<tool_call>"
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            tiny.CHATML,
            r"message 3 \(assistant\): the chat template leaves out the call of the tool",
        ),
        (
            TOOLS_CHATML.replace("{{ call['function']['arguments'] | tojson }}", "{{ '{}' }}"),
            "leaves out the arguments of its call of the tool 'weather'",
        ),
        (
            TOOLS_CHATML.replace(
                "{{ '\n' + message['content'] }}{% endif %}{% for", "{% endif %}{% for"
            ),
            "leaves out the content beside a call of a tool",
        ),
    ],
    ids=["the calls", "their arguments", "what is said beside them"],
)
def test_a_template_that_leaves_out_calls_is_refused(
    tmp_path: Path, template: str, words: str
) -> None:
    calling = TRANSCRIPT[2] | {"content": "Let me see."}
    messages = imported(tmp_path, [*TRANSCRIPT[:2], calling, *TRANSCRIPT[3:]])
    with pytest.raises(DataError, match=words):
        tokenize(tiny.tokenizer(template), messages)


def test_a_template_that_leaves_out_the_tools_on_offer_is_refused(tmp_path: Path) -> None:
    messages = imported(tmp_path, TRANSCRIPT[:2], tools=[WEATHER])
    with pytest.raises(DataError, match="leaves out the tools that are offered"):
        tokenize(tiny.tokenizer(tiny.CHATML), messages)


@pytest.mark.parametrize("content", [None, "Let me see."])
def test_a_template_that_words_a_turn_with_calls_otherwise_is_refused(
    tmp_path: Path, content: str | None
) -> None:
    other = TOOLS_CHATML.replace("{{ '<|im_start|>assistant' }}", "{{ '<|im_start|>caller' }}")
    messages = [*TRANSCRIPT[:2], TRANSCRIPT[2] | {"content": content}, *TRANSCRIPT[3:]]
    with pytest.raises(DataError, match=r"message 3 \(assistant\).* cannot be located"):
        tokenize(tiny.tokenizer(other), imported(tmp_path, messages))


def test_an_argument_that_holds_a_control_token_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    bad = TRANSCRIPT[2] | {"tool_calls": [call({"city": "<|im_end|>"})]}
    messages = imported(tmp_path, [*TRANSCRIPT[:2], bad, *TRANSCRIPT[3:]])
    with pytest.raises(DataError, match=r"holds the control token <\|im_end\|>"):
        tokenize(tokenizer, messages)


def test_a_store_holds_the_rows_that_the_template_can_word_and_names_the_others(
    tmp_path: Path,
) -> None:
    plain = stores.conversation(0, "system")
    messages = imported(tmp_path)
    calling = replace(
        plain,
        example_id=example_id(plain.label, "stimulus_completion", messages),
        view="stimulus_completion",
        messages=messages,
    )
    rows = stores.table(tmp_path / "rows", [plain, calling])
    knows = resolve_model(str(tiny.save(tmp_path / "knows", template=TOOLS_CHATML)))
    stores.fill(rows, tmp_path / "whole", knows)
    store = ActivationStore(tmp_path / "whole")
    assert set(store.index) == {plain.example_id, calling.example_id}
    said = tokenize(tiny.tokenizer(TOOLS_CHATML), messages)
    assert store.tokens(calling.example_id).tolist() == said.ids.tolist()
    silent = resolve_model(str(tiny.save(tmp_path / "silent")))
    stores.fill(rows, tmp_path / "part", silent)
    (dropped,) = read_dropped(tmp_path / "part" / DROPPED_FILE)
    assert dropped.reason == "template"
    assert f"example {calling.example_id}" in dropped.where
    assert "leaves out the call of the tool 'weather'" in dropped.detail
    only = stores.table(tmp_path / "only", [calling])
    with pytest.raises(DataError, match=f"example {calling.example_id} .*leaves out the call"):
        stores.fill(only, tmp_path / "none", silent)
