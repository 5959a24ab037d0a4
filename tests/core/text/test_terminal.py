"""What a terminal would obey is drawn, and what it needs stays."""

from __future__ import annotations

import doctest
import io
import json

import pytest
from rich.table import Table

import core.text.terminal
from core.text.terminal import plain_console, terminal_json, terminal_text


@pytest.mark.parametrize("unsafe", ["\x1b", "\r", "\x9b", "\x85", "\u202e", "\u2067", "\ud800"])
def test_what_a_terminal_obeys_is_replaced(unsafe: str) -> None:
    assert unsafe not in terminal_text(f"a{unsafe}b")
    assert len(terminal_text(f"a{unsafe}b")) == 3


def test_text_of_any_script_stays_as_it_is() -> None:
    text = "naïve\tनमस्ते‌ 👩‍🚀\nשלום 日本語"
    assert terminal_text(text) == text


def test_json_keeps_its_value() -> None:
    value = {"label": "a\x9b\u202eb", "n": [1, None]}
    text = terminal_json(value)
    assert terminal_text(text) == text
    assert json.loads(text) == value


def test_brackets_and_colons_are_text_in_a_table() -> None:
    out = io.StringIO()
    table = Table("type")
    table.add_row("[/red] [bold]:smile:")
    plain_console(file=out, width=60).print(table)
    assert "[/red] [bold]:smile:" in out.getvalue()


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(core.text.terminal).failed == 0
