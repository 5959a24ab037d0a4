"""The rows and templates that users met, where their files lie beside the checkout.

`test_tool_tokens.py` and `test_chat_templates.py` have the same traits in words of our own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny
from tool_turns import TOOLS_CHATML

from activation_store.tokens.tokens import SEGMENT_CODES, tokenize
from core.records.tables import Message
from generators.exchange.conversation_files import read_own_rows

CASES = Path(
    os.environ.get("LATENTQA_CASES", Path(__file__).parents[3].parent / "shared" / "cases")
)

pytestmark = pytest.mark.skipif(
    not (CASES / "rows").is_dir(), reason="the files of the rows are not beside the checkout"
)


def template(name: str) -> str:
    return (CASES / "templates" / f"{name}.jinja").read_text()


@pytest.mark.parametrize(
    ("name", "rows"),
    [("sdk_transcripts", 8), ("empty_tool_results", 4), ("tool_arguments_as_text", 1)],
)
def test_transcripts_are_kept_whole(name: str, rows: int) -> None:
    as_text = name == "tool_arguments_as_text"
    tokenizer = tiny.tokenizer(template("deepseek-like") if as_text else TOOLS_CHATML)
    kept, dropped = read_own_rows(CASES / "rows" / f"{name}.jsonl")
    assert (len(kept), dropped) == (rows, [])
    for own in kept:
        tokens = tokenize(tokenizer, own.row.messages)
        said = tokenizer.decode(tokens.ids[tokens.segments == SEGMENT_CODES["stimulus"]])
        assert str(said).startswith("Clean up.")


@pytest.mark.parametrize("end", ["", "\n", " \n\n"])
@pytest.mark.parametrize("role", ["system", "user"])
@pytest.mark.parametrize(
    "name", ["gemma3-like", "llama2-like", "mistral-like", "qwen3-like", "r1-like"]
)
def test_contents_that_end_with_white_space_are_found(name: str, role: str, end: str) -> None:
    tokenizer = tiny.tokenizer(template(name))
    messages = [Message(role=role, content=f"Be a ferryman.{end}", segment="control")]
    if role == "user":
        messages.append(Message(role="assistant", content="Yes.", segment="control"))
    messages += [
        Message(role="user", content=f"Will it rain?{end}", segment="stimulus"),
        Message(role="assistant", content="Aye.", segment="completion"),
    ]
    if (name, role) == ("mistral-like", "system"):
        pytest.skip("the template has no system role")
    tokens = tokenize(tokenizer, messages)
    for segment, said in (("stimulus", "Will it rain?"), ("completion", "Aye.")):
        own = tokenizer.decode(tokens.ids[tokens.segments == SEGMENT_CODES[segment]])
        assert str(own).strip() == said
