"""Sentences of a passage: abbreviations and initials end none."""

from __future__ import annotations

import pytest

from generators.kinds.extractive import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Okafor left at 9 a.m. She rowed.", ["Dr. Okafor left at 9 a.m.", "She rowed."]),
        ("J. R. Tolkien wrote. He slept!", ["J. R. Tolkien wrote.", "He slept!"]),
        ('"Stop!" She ran. It rained.', ['"Stop!"', "She ran.", "It rained."]),
        ("St. Ives lies by the sea. Mrs. Penrose lives there.",
         ["St. Ives lies by the sea.", "Mrs. Penrose lives there."]),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences
