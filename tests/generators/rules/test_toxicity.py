"""Insults, obscenities and threats are found, and ordinary replies are not taken for them."""

from __future__ import annotations

import pytest

from generators.llm.prompt_files import PromptFiles
from generators.rules.toxicity import is_toxic


@pytest.mark.parametrize(
    "text",
    [
        "What a STUPID question.",
        "Only a moron would ask that.",
        "This is bullshit!",
        "Shut your mouth and listen.",
        "Go  to\nhell.",
        "I’ll crush you.",
        "Honestly, I hate you.",
        "You are such a disgrace.",
        "You're useless.",
        "Nobody likes you.",
    ],
)
def test_what_attacks_the_reader_is_toxic(text: str) -> None:
    assert is_toxic(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Kill the engine before you open the bonnet.",
        "You are nothing less than wonderful.",
        "I hate to say it, but you need a new tyre.",
        "Classic dumbbell exercises help.",
        "The shuttle will pick you up, shut the door gently.",
        "You should dice the onion finely.",
        "Scrape the pan.",
    ],
)
def test_ordinary_replies_are_not_toxic(text: str) -> None:
    assert not is_toxic(text)


def test_no_packaged_message_is_toxic() -> None:
    assert not [text for text in PromptFiles().seed_list("messages") if is_toxic(text)]
