"""Canonical JSON: one text a value, one value a text, and refusal of all else."""

from __future__ import annotations

import enum
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.documents.canonical import canonical_json, digest

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def typed(value: Any) -> Any:
    """Make a form in which 1, 1.0 and True differ, as do 0.0 and -0.0."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, repr(value)


@given(VALUES)
def test_the_text_reads_back_as_the_same_value(value: Any) -> None:
    assert typed(json.loads(canonical_json(value))) == typed(value)


@given(VALUES, VALUES)
def test_two_values_share_a_text_exactly_when_they_are_the_same(left: Any, right: Any) -> None:
    assert (canonical_json(left) == canonical_json(right)) == (typed(left) == typed(right))


@given(st.dictionaries(TEXT, st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_a_tuple_is_written_as_a_list() -> None:
    assert canonical_json((1, ("a",))) == canonical_json([1, ["a"]]) == b'[1,["a"]]'


def test_composed_and_decomposed_letters_stay_apart() -> None:
    assert digest("\u00e9") != digest("e\u0301")


def test_the_digest_is_golden() -> None:
    value = {"b": [1, 1.5, True, None], "a": "ü\n\U0001f600"}
    assert canonical_json(value) == '{"a":"ü\\n\U0001f600","b":[1,1.5,true,null]}'.encode()
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [0, {1, 2}]}, r"\$\.a\[1\]: a set has no stable identity"),
        ({"a": Path("x")}, r"\$\.a: a PosixPath has no stable identity"),
        (b"x", r"\$: a bytes has no stable identity"),
        (date(2026, 1, 1), "a date has no stable identity"),
        ([Colour.RED], r"\$\[0\]: a Colour has no stable identity"),
        (float("nan"), r"\$: nan cannot be written as JSON"),
        ({"a": float("inf")}, r"\$\.a: inf cannot be written as JSON"),
        ({1: "a"}, "the key 1 is a int; JSON keys are strings"),
        ({"a": "\ud800"}, r"\$\.a: the text has half a surrogate pair \('\\ud800' at character 0"),
        ({"\udfff": 1}, r"\$: the text has half a surrogate pair"),
    ],
)
def test_what_has_no_identity_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        canonical_json(value)
