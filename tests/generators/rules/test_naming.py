"""Scoring of answers: what counts as naming an object."""

from __future__ import annotations

import doctest

import pytest

from generators.rules import naming
from generators.rules.naming import is_exactly, names_any


def test_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(naming).failed == 0


@pytest.mark.parametrize(
    ("answer", "name", "named"),
    [
        ("It is in BOOTES, I think", "Boötes", True),
        ("Canis Major's brightest", "Canis Major", True),
        ("Canis Minor is Major", "Canis Major", False),
        ("two pesos", "Peso", True),
        ("soccerball", "soccer", False),
        ("", "soccer", False),
        ("東京は日本の首都です", "日本", True),
        ("달러로 지불한다", "달러", True),
        ("바스 강", "버스", False),
        ("भारतीय नहीं", "भारत", False),
        ("it is 🍣!", "🍣", True),
    ],
)
def test_a_name_counts_as_whole_words(answer: str, name: str, named: bool) -> None:
    assert names_any(answer, [name]) is named


def test_any_alias_counts() -> None:
    assert names_any("the greenback", ["Dollar", "greenback"])
    assert is_exactly("greenback.", ["Dollar", "greenback"])


def test_an_exact_answer_says_nothing_else_in_its_first_clause() -> None:
    assert is_exactly(" soccer\nThe sport", ["soccer"])
    assert is_exactly("東京。首都です", ["東京"])
    assert not is_exactly("a soccer player", ["soccer"])
