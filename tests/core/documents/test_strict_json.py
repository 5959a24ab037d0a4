"""The readers of JSON from elsewhere."""

from __future__ import annotations

import pytest

from core.documents.strict_json import load_json, parse_json


@pytest.mark.parametrize("depth", [101, 900, 100_000])
def test_what_is_nested_too_deeply_is_a_value_error_in_every_reader(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        for read in (load_json, parse_json):
            with pytest.raises(ValueError, match="nested too deeply"):
                read(text)
        with pytest.raises(ValueError, match="nested too deeply"):
            load_json(text.encode())


def test_the_lenient_reader_takes_what_python_takes() -> None:
    assert load_json(b'{"a": Infinity, "a": [1, 2]}') == {"a": [1, 2]}
    assert load_json("[" * 100 + "]" * 100)
