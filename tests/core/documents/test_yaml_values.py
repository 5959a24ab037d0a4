"""YAML's traps do not reach an experiment."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from core.documents.yaml_values import parse_yaml
from core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("010", 10),
        ("-1", -1),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("'8'", "8"),
        ("[control, 3]", ["control", 3]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("org/name@main", "org/name@main"),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = parse_yaml(text, "x")
    assert (type(found), found) == (type(value), value)


def test_a_repeated_key_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("a: 1\nb: 2\na: 3\n", "x.yaml")
    assert str(caught.value) == (
        'x.yaml:3: not valid YAML for an experiment (found duplicate key "a").'
    )


def test_a_repeated_key_in_a_section_is_refused() -> None:
    with pytest.raises(ConfigError, match='found duplicate key "r"'):
        parse_yaml("train: {r: 1, r: 2}", "x.yaml")


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="the key 3 is not text"):
        parse_yaml("3: 1", "x.yaml")


def test_what_is_no_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml:2: not valid YAML for an experiment \("):
        parse_yaml("a: 1\n b: [", "x.yaml")


def test_an_object_is_never_made() -> None:
    with pytest.raises(ConfigError):
        parse_yaml("!!python/object/apply:os.getcwd []", "x.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: .inf", "inf is not a finite number"),
        ("a: 1e400", "inf is not a finite number"),
        (f"a: {10**30}", "an integer has more than 64 bits"),
        (f"a: {'9' * 5000}", "not valid YAML for an experiment"),
        ("a: !!set {x}", "a set is not an allowed value"),
        ("a: !!binary aGVsbG8=", "a bytes is not an allowed value"),
        ("a: &a [*a]", "its aliases expand to more than 100,000 values"),
        ("[" * 1000 + "]" * 1000, "nested too deep"),
    ],
)
def test_what_no_experiment_can_hold_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_that_grow_without_end_are_refused_at_once() -> None:
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="its aliases expand to more than"):
        parse_yaml("\n".join(["a0: &a0 [x]", *rows]), "x.yaml")


def test_an_alias_is_the_value_that_it_names() -> None:
    assert parse_yaml("a: &x [1]\nb: *x", "x.yaml") == {"a": [1], "b": [1]}


def test_merged_mappings_that_grow_without_end_are_refused_at_once() -> None:
    lines = ["a: &a {x: 1}"]
    for before, name in itertools.pairwise("abcdefghijklmnopqrst"):
        lines.append(f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}], {name}1: 1}}")
    with pytest.raises(ConfigError, match="its merged mappings have more than 100,000 values"):
        parse_yaml("\n".join(lines), "x")
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", "x")["b"] == {"x": 1, "y": 2}


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="a text holds half of a surrogate pair"):
        parse_yaml('a: "\\ud800"', "x")
