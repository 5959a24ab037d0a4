"""Numbers in words: what a reader sees of them."""

from __future__ import annotations

import pytest

from core.text.wording import count, duration, interval, join, number, size


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (number(-0.456), "−0.46"),
        (number(-0.001), "0.00"),
        (interval(0.74, 0.66, -0.82), "0.74\u00a0[0.66,\u00a0−0.82]"),
        (interval(0.74, None, None), "0.74"),
        (interval(None, None, None), "–"),
        (count(18_422), "18\u202f422"),
        (count(431.77), "432"),
        (size(21_234_567), "21.2 MB"),
        (size(999.9), "1 kB"),
        (duration(7500), "2 h 5 min"),
        (join(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_a_number_reads_as_a_person_writes_it(found: str, said: str) -> None:
    assert found == said
