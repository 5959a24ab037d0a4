"""Cached results of an evaluation: whole, about the same rows, or not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.measure.partial_results import PartialResultCache

VALUES = [[1.0, 2.0], [0.1 + 0.2]]


@pytest.fixture
def parts(tmp_path: Path) -> PartialResultCache:
    made = PartialResultCache(tmp_path)
    made.store("test.control.right", ["a", "b"], VALUES)
    return made


def test_a_part_comes_back_to_the_bit(parts: PartialResultCache) -> None:
    assert parts.load("test.control.right", ["a", "b"]) == VALUES


def test_an_absent_part_is_none(parts: PartialResultCache) -> None:
    assert parts.load("test.control.other", ["a", "b"]) is None


def test_a_part_about_other_rows_is_not_taken(parts: PartialResultCache) -> None:
    assert parts.load("test.control.right", ["a", "c"]) is None


def test_every_length_of_a_truncated_part_is_noticed(
    parts: PartialResultCache, tmp_path: Path
) -> None:
    path = tmp_path / "test.control.right.json"
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert parts.load("test.control.right", ["a", "b"]) is None


def test_a_changed_value_is_noticed(parts: PartialResultCache, tmp_path: Path) -> None:
    path = tmp_path / "test.control.right.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        assert parts.load("test.control.right", ["a", "b"]) in (None, VALUES)
