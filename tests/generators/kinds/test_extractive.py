"""Sentences of a passage: abbreviations and initials end none."""

from __future__ import annotations

from random import Random

import pytest

from generators.kinds.extractive import Extractive, split_sentences
from generators.llm.prompt_files import PromptFiles


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Okafor left at 9 a.m. She rowed.", ["Dr. Okafor left at 9 a.m.", "She rowed."]),
        ("J. R. Tolkien wrote. He slept!", ["J. R. Tolkien wrote.", "He slept!"]),
        ('"Stop!" She ran. It rained.', ['"Stop!"', "She ran.", "It rained."]),
        ("St. Ives lies by the sea. Mrs. Penrose lives there.",
         ["St. Ives lies by the sea.", "Mrs. Penrose lives there."]),
        ("The U.N. Council met. Gov. Lee had a Ph.D. He left.",
         ["The U.N. Council met.", "Gov. Lee had a Ph.D. He left."]),
        ("Él vive aquí. ¿Quién es? ¡Nadie!", ["Él vive aquí.", "¿Quién es?", "¡Nadie!"]),
        ("Das ist z. B. Hamburg. Er wohnt dort.", ["Das ist z. B. Hamburg.", "Er wohnt dort."]),
        ("А.С. Пушкин писал. Он спал.", ["А.С. Пушкин писал.", "Он спал."]),
        ("他住在这里。他说：“好。”然后走了！", ["他住在这里。", "他说：“好。”", "然后走了！"]),
        ("वह यहाँ रहता है। वह चली गई।", ["वह यहाँ रहता है।", "वह चली गई।"]),
        ("هو هنا. هل غادرت؟ نعم.", ["هو هنا.", "هل غادرت؟", "نعم."]),
        ("그는 여기 산다. 그녀는 떠났다.", ["그는 여기 산다.", "그녀는 떠났다."]),
        ("Wait... what? Yes. and so on.", ["Wait... what?", "Yes. and so on."]),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_sentences_of_any_script_are_asked_about() -> None:
    passage = "守塔人住在小岛上。他每天晚上写信给妹妹。"
    asked = Extractive().questions("extraction", f"Story:\n\n{passage}", PromptFiles(), Random(0))
    assert next(asked).about in split_sentences(passage)
