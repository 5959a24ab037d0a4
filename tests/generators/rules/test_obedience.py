"""Whether a reply obeys an instruction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import chain
import pytest

from core.errors import DataError
from generators.rules.obedience import language_of, obeys, obeys_control


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("You can water the plant once a week, and that is all it needs.", "en"),
        ("Vous pouvez arroser la plante une fois par semaine avec de l'eau.", "fr"),
        ("Puede regar la planta una vez por semana con el agua del grifo.", "es"),
        ("Sie gießen die Pflanze nicht zu oft, und das ist gut für sie.", "de"),
        ("Non è una pianta che si deve bagnare con la pioggia.", "it"),
        ("Você não deve regar a planta com água para beber, mas é melhor.", "pt"),
        ("Cactus.", None),
        ("", None),
    ],
)
def test_the_language_with_most_frequent_words_is_named(text: str, language: str | None) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("reply", "check", "expected"),
    [
        ("Ahoy! Set sail.", {"words": ["ahoy", "arr"]}, True),
        ("A sailor's tale", {"words": ["sail"]}, False),
        ("Set sail.", {"without": ["arr", "Ahoy"]}, True),
        ("Ahoy! Set sail.", {"without": ["arr", "Ahoy"]}, False),
        ("", {"without": ["arr"]}, False),
        ("<think>\nNo ahoy here.\n</think>\n\nSet sail.", {"without": ["ahoy"]}, True),
        ("Say so.</think>SET SAIL", {"form": "capitals"}, True),
        ("Try some tea.", {"length": [2, 3]}, True),
        ("Tea.", {"length": [2, 3]}, False),
        ("Try some good tea.", {"length": [2, 3]}, False),
        ("1. Water it.\n2. Wait.", {"form": "numbered_list"}, True),
        ("Water it in 1. place", {"form": "numbered_list"}, False),
        ("Have you tried tea?", {"form": "question"}, True),
        ("Try tea.", {"form": "question"}, False),
        ("TRY TEA, IT HELPS.", {"form": "capitals"}, True),
        ("...", {"form": "capitals"}, False),
        ("Try tea.", {"form": "one_sentence"}, True),
        ("Try tea. Then sleep.", {"form": "one_sentence"}, False),
        ("Tea! Now!", {"form": "exclamations"}, True),
        ("Je vous conseille le thé avec du miel.", {"language": "fr"}, True),
        ("I would try the tea with honey.", {"language": "fr"}, False),
    ],
)
def test_a_reply_is_checked(reply: str, check: dict[str, object], expected: bool) -> None:
    assert obeys(reply, check) is expected


@pytest.mark.parametrize(
    "check", [{}, {"form": "sonnet"}, {"language": "xx"}, {"words": "arr"}, {"length": 3}]
)
def test_an_unknown_check_is_an_error(check: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected words, language, form"):
        obeys("Ahoy!", check)


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ({"form": {"form": "haiku"}}, r'facts.checks.form: got {"form": "haiku"}, expected words'),
        ({"form": "haiku"}, "facts.checks.form: got a string, expected words"),
        (["haiku"], "facts.checks: got a list, expected an object"),
    ],
)
def test_checks_of_another_make_are_refused_in_a_line(checks: Any, says: str) -> None:
    said = {"file": "own.parquet", "position": 3, "facts": {"checks": checks}}
    own = replace(chain.row(0)[0], provenance=said)
    with pytest.raises(DataError, match=says) as refused:
        obeys_control(own, "Hello.")
    assert str(refused.value).startswith("own.parquet:3, example ")
