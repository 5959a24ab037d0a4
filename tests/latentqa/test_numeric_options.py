"""Numbers on the command line that nothing can be computed with are refused before any work."""

from __future__ import annotations

import pytest
from command_line import Called

SAID = ("nowhere", "--prompt", "Hi")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-tokens", str(10**12)),
        ("--max-tokens", "0"),
        ("--seed", "-1"),
        ("--seed", str(2**70)),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--temperature", "1e308"),
        ("--temperature", "-1"),
    ],
)
@pytest.mark.parametrize(
    "command", [("ask", *SAID, "--question", "Who?"), ("steer", *SAID, "--control", "cheerful")]
)
def test_a_number_of_asking_and_steering_is_one_line(
    command: tuple[str, ...], option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option in Called(capsys, *command, option, value).refused()


@pytest.mark.parametrize(
    "words",
    [
        ("ask", *SAID, "--question", "Who?", "--samples", str(10**9)),
        ("steer", *SAID, "--control", "cheerful", "--strength", "nan"),
        ("sweep", "x.yaml", "--vary", "rank=1,2", "--seeds", str(10**9)),
    ],
)
def test_other_numbers_are_one_line_too(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert words[-2] in Called(capsys, *words).refused()
