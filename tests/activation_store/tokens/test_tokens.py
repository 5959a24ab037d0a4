"""Spans of segments in any chat template, and what masking withholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import stores
import tiny
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from activation_store.tokens.tokens import (
    SEGMENT_CODES,
    Encoded,
    Tokens,
    encode_continuation,
    tokenize,
)
from core.errors import DataError
from core.records.tables import VIEWS, Message, View

CONTROL, STIMULUS, COMPLETION = "You are a pirate.", "Where to?", "To the sea."


def said(view: View) -> tuple[Message, ...]:
    return stores.messages(view, CONTROL, STIMULUS, COMPLETION)


def texts(tokenizer: Any, tokens: Tokens) -> dict[str, str]:
    """Return what the tokens of each segment say."""
    return {
        name: tokenizer.decode(tokens.ids[tokens.segments == code])
        for name, code in SEGMENT_CODES.items()
    }


def refuses(template: str, view: View) -> bool:
    return template == "gemma" and view == "system"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_each_segment_holds_its_own_text_and_nothing_else(template: str, view: View) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    if refuses(template, view):
        with pytest.raises(DataError, match=r"refuses roles .*System role not supported"):
            tokenize(tokenizer, said(view))
        return
    found = texts(tokenizer, tokenize(tokenizer, said(view)))
    fine = "" if view in ("control", "system") else "Fine."
    assert found["control"] == CONTROL + fine
    assert found["stimulus"] == ("" if view == "control" else STIMULUS)
    assert found["completion"] == (COMPLETION if view == "stimulus_completion" else "")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_the_tokens_are_those_of_the_plain_rendering(template: str, view: View) -> None:
    if refuses(template, view):
        return
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    text = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in said(view)],
        tokenize=False,
        add_generation_prompt=view != "stimulus_completion",
        date_string="01 Jan 2025",
    )
    tokens = tokenize(tokenizer, said(view))
    assert tokens.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokens.ids.dtype == np.int32
    assert tokens.segments.dtype == np.uint8


@pytest.mark.parametrize("view", ["stimulus", "stimulus_completion", "system"])
@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_masking_withholds_control_and_default_prompt_and_no_more(
    template: str, view: View
) -> None:
    if refuses(template, view):
        return
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    tokens = tokenize(tokenizer, said(view))
    hidden = tokenizer.decode(tokens.ids[: tokens.withheld])
    shown = tokenizer.decode(tokens.ids[tokens.withheld :])
    assert CONTROL in hidden
    assert "helpful" not in shown
    assert not (tokens.segments[tokens.withheld :] == SEGMENT_CODES["control"]).any()
    # the header of the first message after the control is shown, where the template has one
    merged = template == "mistral" and view == "system"  # the control stands in the user's turn
    starts = {
        "chatml": "<|im_start|>user\n",
        "llama3": "<|start_header_id|>user<|end_header_id|>\n\n",
        "qwen3": "<|im_start|>user\n",
        "gemma": "<start_of_turn>user\n",
        "mistral": "" if merged else "[INST] ",
        "phi3": "<|user|>",  # it swallows the white space behind it
    }
    assert isinstance(shown, str)
    assert shown.startswith(starts[template] + STIMULUS)


@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_view_control_withholds_nothing(template: str) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    assert tokenize(tokenizer, said("control")).withheld == 0


def test_a_default_system_prompt_is_template_text() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML)
    found = texts(tokenizer, tokenize(tokenizer, said("control")))
    assert "You are a helpful assistant" in found["template"]
    assert found["template"].endswith("<|im_start|>assistant\n")


def test_no_generation_prompt_after_a_completion() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML)
    tokens = tokenize(tokenizer, said("stimulus_completion"))
    decoded = tokenizer.decode(tokens.ids)
    assert isinstance(decoded, str)
    assert decoded.endswith(COMPLETION + "<|im_end|>\n")


@pytest.mark.parametrize("template", ["llama3", "gemma"])
def test_a_template_that_strips_contents_is_followed(template: str) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    padded = [
        Message(role=m.role, content=f" \n{m.content} ", segment=m.segment)
        for m in said("stimulus")
    ]
    found, plain = tokenize(tokenizer, padded), tokenize(tokenizer, said("stimulus"))
    assert found.ids.tolist() == plain.ids.tolist()
    assert found.segments.tolist() == plain.segments.tolist()
    assert found.withheld == plain.withheld


def test_white_space_that_a_template_keeps_belongs_to_its_segment() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML)
    padded = (Message(role="user", content="  Ahoy \n", segment="control"),)
    assert texts(tokenizer, tokenize(tokenizer, padded))["control"] == "  Ahoy \n"


def test_white_space_that_a_control_token_swallows_is_no_fault_of_the_content() -> None:
    tokenizer = tiny.tokenizer(tiny.PHI3)
    padded = (Message(role="user", content="  Ahoy", segment="control"),)
    assert texts(tokenizer, tokenize(tokenizer, padded))["control"] == "Ahoy"


@pytest.mark.parametrize(
    ("template", "token"),
    [
        (tiny.CHATML, "<|im_end|>"),
        (tiny.CHATML, "<|endoftext|>"),
        (tiny.LLAMA3, "<|start_header_id|>"),  # special, yet neither bos nor eos
        (tiny.GEMMA, "<end_of_turn>"),
        (tiny.PHI3, "<|end|>"),
    ],
)
def test_a_control_token_in_a_content_is_refused_by_name(template: str, token: str) -> None:
    tokenizer = tiny.tokenizer(template)
    with pytest.raises(DataError) as caught:
        tokenize(tokenizer, [Message(role="user", content=f"a {token} b", segment="control")])
    assert str(caught.value) == (
        f"a message of segment control holds the control token {token}; escape or remove it."
    )


def test_control_tokens_of_other_models_are_plain_text() -> None:
    tokenizer = tiny.tokenizer(tiny.GEMMA)
    said = [Message(role="user", content="a <|im_end|> b", segment="control")]
    assert texts(tokenizer, tokenize(tokenizer, said))["control"] == "a <|im_end|> b"


def test_a_template_that_drops_a_message_is_refused() -> None:
    dropping = "{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(DataError, match="cuts, drops or changes a message"):
        tokenize(tiny.tokenizer(dropping), said("stimulus"))


def test_a_template_that_changes_a_content_is_refused() -> None:
    shouting = "{% for m in messages %}{{ m['content'][:5] }}{% endfor %}"
    with pytest.raises(DataError, match="cuts, drops or changes a message"):
        tokenize(tiny.tokenizer(shouting), said("stimulus"))


def test_roles_that_a_template_refuses_are_named() -> None:
    two = [Message(role="user", content="a", segment="control")] * 2
    with pytest.raises(DataError, match=r"refuses roles \['user', 'user'\].*alternate"):
        tokenize(tiny.tokenizer(tiny.MISTRAL), two)


def test_private_use_characters_of_a_content_are_kept() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML)
    text = "an icon \ue000 and \ue003"
    tokens = tokenize(tokenizer, [Message(role="user", content=text, segment="control")])
    assert texts(tokenizer, tokens)["control"] == text


def test_many_bytes_of_one_character_are_all_in_its_segment() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML)
    tokens = tokenize(tokenizer, [Message(role="user", content="é漢🙂", segment="control")])
    assert texts(tokenizer, tokens)["control"] == "é漢🙂"
    assert (tokens.segments == SEGMENT_CODES["control"]).sum() == len("é漢🙂".encode())


def test_a_token_across_control_and_stimulus_is_withheld() -> None:
    # no special token between them, and "s" + " " of the next text is one token
    joined = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = tiny.tokenizer(joined, merges=True)
    tokens = tokenize(
        tokenizer,
        [
            Message(role="system", content="pirates", segment="control"),
            Message(role="user", content=" hello", segment="stimulus"),
        ],
    )
    assert tokenizer.decode(tokens.ids[tokens.withheld :]) == "hello"


def test_a_continuation_has_no_space_that_only_begins_a_text() -> None:
    names = ["▁", "\n", "a", "b", "▁a"]
    inner = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [("▁", "a")]))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=inner)  # type: ignore[no-untyped-call]
    assert Encoded.of(tokenizer, " ab").ids.tolist() == [0, 4, 3]
    assert encode_continuation(tokenizer, " ab").tolist() == [4, 3]


@pytest.mark.parametrize("text", [" is", "Answer", "\n\nAnswer", ". Then", "?\nwhat"])
def test_a_continuation_is_tokenized_as_behind_a_text(text: str) -> None:
    tokenizer = tiny.tokenizer(merges=True)
    ids = tokenizer(f"a{text}", add_special_tokens=False)["input_ids"]
    assert [*tokenizer("a")["input_ids"], *encode_continuation(tokenizer, text)] == ids
