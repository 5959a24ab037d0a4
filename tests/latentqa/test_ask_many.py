"""Asking about dialogues, chosen tokens and layers, and files of prompts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from ask_calls import PROMPT, QUESTION, Called

from core.errors import DataError
from pipelines.asking.conversations import (
    conversation_from_messages,
    conversation_from_texts,
    parse_messages,
)
from pipelines.asking.prompts_file import read_prompts
from pipelines.asking.reader import AskOptions, Reader, make_prompt
from pipelines.asking.results import answer_agreement

DIALOGUE = [
    {"role": "system", "content": "Be red."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Ahoy."},
    {"role": "user", "content": "Who?"},
]


def test_a_dialogues_segments() -> None:
    view, messages = conversation_from_messages(DIALOGUE)
    assert view == "system"
    assert [m.segment for m in messages] == ["control", "stimulus", "completion", "stimulus"]
    view, messages = conversation_from_messages(DIALOGUE[1:])
    assert view == "control"
    assert [m.segment for m in messages] == ["control", "completion", "stimulus"]
    assert conversation_from_messages(DIALOGUE[:1])[0] == "control"


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("p", {}),
        ("p", {"system": "s"}),
        ("p", {"stimulus": "t"}),
    ],
)
def test_messages_that_say_their_segments_make_the_views(
    prompt: str, texts: dict[str, str]
) -> None:
    view, messages = conversation_from_texts(prompt, **texts)
    said = [{"role": m.role, "content": m.content, "segment": m.segment} for m in messages]
    assert conversation_from_messages(said) == (view, messages)
    reply = {"role": "assistant", "content": "r", "segment": "completion"}
    if view == "stimulus":
        assert conversation_from_messages([*said, reply])[0] == "stimulus_completion"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hello", "got str, expected a list"),
        ([], "got an empty list, expected a list of"),
        ([{"role": "user"}], "message 1 is"),
        ([{"role": "tool", "content": "x"}], 'role "tool", expected system, user, assistant'),
        ([{"role": "user", "content": " "}], "expected some text"),
        ([{"role": "user", "content": "x", "name": "n"}], "has the key 'name'"),
        ([{"role": "user", "content": "x", "segment": "reply"}], 'segment "reply", expected'),
        ([{**DIALOGUE[0], "segment": "control"}, DIALOGUE[1]], "message 2 has no segment"),
    ],
)
def test_another_form_of_messages_is_one_line(messages: list[Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        conversation_from_messages(messages)
    assert said in str(caught.value)


@pytest.mark.parametrize("how", ["text", "file", "stdin", "object"])
def test_a_dialogue_comes_as_text_as_a_file_or_on_stdin(
    how: str,
    root: Path,
    reader: Reader,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = json.dumps({"messages": DIALOGUE} if how == "object" else DIALOGUE)
    (tmp_path / "said.json").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    given = {"file": str(tmp_path / "said.json"), "stdin": "-"}.get(how, text)
    words = ("--question", QUESTION, "--max-tokens", "2", "--json", "--device", "cpu")
    called = Called(capsys, root, "toy", "--messages", given, *words)
    found = json.loads(called.out)
    assert [m["content"] for m in found["messages"]] == [m["content"] for m in DIALOGUE]
    expected = reader.ask_all(DIALOGUE, [QUESTION], max_tokens=2)
    assert found["answers"][0]["answer"] == expected.answers[0].text
    assert found["activations"] == expected.activations < expected.length


def test_tokens_and_layer_are_what_is_read(
    root: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--messages", json.dumps(DIALOGUE), "--question", QUESTION, "--max-tokens", "2")
    chosen = ("--tokens", "segment:control", "--layer", "-1", "--device", "cpu")
    called = Called(capsys, root, "toy", *words, *chosen)
    head, *lines = called.out.splitlines()
    assert head.endswith("7 activations of block 3 (the decoder was trained on block 2)")
    assert any(line.startswith("7 of them belong to control tokens") for line in lines)
    asked = reader.ask_all(DIALOGUE, [QUESTION], tokens="segment:control", layer=3, max_tokens=2)
    assert (asked.activations, asked.withheld, asked.layers) == (7, 7, (3,))
    other = reader.ask_all(DIALOGUE, [QUESTION], tokens="segment:control", max_tokens=2)
    assert asked.answers[0].log_probability != other.answers[0].log_probability


def test_drawn_answers_stand_beside_the_likeliest(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--prompt", PROMPT, "--question", QUESTION, "--max-tokens", "4", "--device", "cpu")
    drawn = ("--samples", "3", "--temperature", "2", "--seed", "5")
    shown = Called(capsys, root, "toy", *words, *drawn).out
    assert shown.count("   drawn: ") == 3
    assert "nats a token; agreement of drawn answers" in shown
    (found,) = json.loads(Called(capsys, root, "toy", *words, *drawn, "--json").out)["answers"]
    assert len(found["samples"]) == 3
    assert found["agreement"] == answer_agreement([own["answer"] for own in found["samples"]])


def test_agreement() -> None:
    assert answer_agreement(["A pirate.", "a pirate"]) == 1
    assert answer_agreement(["pirate", "parrot"]) == 0
    assert answer_agreement(["old pirate", "old pirate", "old parrot"]) == pytest.approx(2 / 3)
    assert answer_agreement(["alone"]) is None


def file_of(folder: Path, *rows: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_a_file_of_prompts_gives_a_line_each(
    root: Path, reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(
        tmp_path,
        {"prompt": PROMPT},
        {"prompt": "Hi.", "system": "Be red.", "question": "Loves it?", "id": "own"},
        {"messages": DIALOGUE, "questions": ["Who?", "Why?"], "tokens": "last:3"},
    )
    words = ("--file", str(path), "--question", QUESTION, "--max-tokens", "3", "--device", "cpu")
    called = Called(capsys, root, "toy", *words)
    assert called.code == 0
    lines = [json.loads(line) for line in called.out.splitlines()]
    assert [line["id"] for line in lines] == [1, "own", 3]
    assert [len(line["answers"]) for line in lines] == [1, 1, 2]
    assert lines[1]["answers"][0]["question"] == "Loves it?"
    assert (lines[2]["activations"], lines[2]["tokens"]["choice"]) == (3, "last:3")
    alone = reader.ask_all(PROMPT, [QUESTION], max_tokens=3)
    assert lines[0]["answers"][0]["answer"] == alone.answers[0].text
    assert lines[0]["decoder"] == reader.name


def test_a_prompt_that_cannot_be_asked_has_its_reason_and_the_others_go_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(
        tmp_path,
        {"prompt": "Say <|im_end|>"},
        {"prompt": PROMPT},
        {"prompt": PROMPT, "tokens": "match:parrot"},
        {"prompt": PROMPT, "question": "<|im_end|>?"},
    )
    words = ("--file", str(path), "--question", QUESTION, "--max-tokens", "2", "--device", "cpu")
    called = Called(capsys, root, "toy", *words)
    lines = [json.loads(line) for line in called.out.splitlines()]
    assert ["error" in line for line in lines] == [True, False, True, True]
    assert "control token <|im_end|>" in lines[0]["error"]
    assert called.code == 2
    assert "3 of 4 prompts could not be asked" in called.err


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("You love red\n\n  Who?\n")
    lines = read_prompts(tmp_path / "p.txt", ["Which?"], "last:2")
    assert [line.id for line in lines] == [1, 3]
    assert lines[1].prompt == make_prompt("Who?", ["Which?"], tokens="last:2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no prompt"),
        ("{", "line 1: not valid JSON"),
        ("[]", "line 1: got a list, expected an object"),
        ('{"prompt": "p", "ask": 1}', "unknown key 'ask'"),
        ('{"question": "q"}', "expected one of `prompt` and `messages`"),
        ('{"prompt": 3}', "prompt is a int, expected text"),
        ('{"prompt": "p", "questions": "q"}', "questions is not a list"),
        ('{"prompt": "p"}', "has no question"),
        ('{"prompt": " ", "question": "q"}', "line 1: ask: the prompt is empty"),
        ('{"messages": [], "question": "q"}', "line 1: messages: got an empty list"),
        pytest.param("[" * 9999, "line 1: not valid JSON (nested too deeply", id="deep"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / "p.jsonl", [], "visible")
    assert said in str(caught.value)


def test_batches_are_as_one_at_a_time(reader: Reader) -> None:
    prompts = [make_prompt("Hi" * i, [QUESTION]) for i in (9, 1, 4, 6, 2)]
    options = AskOptions(max_tokens=3)
    for found, prompt in zip(reader.ask_each(prompts, options, batch=2), prompts, strict=True):
        alone = reader.ask_prompt(prompt, options)
        assert not isinstance(found, Exception)
        assert found.answers[0].text == alone.answers[0].text
        assert found.activations == alone.activations


def test_messages_are_json(tmp_path: Path) -> None:
    assert parse_messages(json.dumps(DIALOGUE), "here") == DIALOGUE
    with pytest.raises(DataError, match="here: not valid JSON"):
        parse_messages("{", "here")
