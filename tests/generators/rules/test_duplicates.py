"""Near-duplicates: exact similarity decides, on the candidates of a looser index."""

from __future__ import annotations

import random
import string

from generators.rules.duplicates import Duplicates


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)}


def test_pairs_at_the_threshold_are_found() -> None:
    draw = random.Random(2)
    found = pairs = 0
    for cut in (98, 99, 100, 101) * 50:
        one = "".join(draw.choices(string.ascii_lowercase, k=120))
        other = one[:cut] + "".join(draw.choices(string.ascii_lowercase, k=120 - cut))
        mine, theirs = shingles(one), shingles(other)
        similar = len(mine & theirs) / len(mine | theirs) >= 0.7
        index = Duplicates(0.7)
        index.add(one)
        fault = index.find(other)
        assert similar or fault is None
        pairs += similar
        found += fault is not None
    assert pairs >= 80
    assert found >= 0.95 * pairs


def test_a_text_of_the_same_owner_is_no_duplicate() -> None:
    index = Duplicates(0.7)
    index.add("the keeper of the light walks the shore", "a")
    assert index.find("the keeper of the light walks the shore", "a") is None
    assert index.find("the keeper of the light walks the shore", "b") is not None
