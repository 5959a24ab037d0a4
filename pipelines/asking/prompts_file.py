"""Files of prompts: JSON lines, or text with a prompt on each line.

A JSON line is an object with `prompt` (and `system` or `stimulus`) or with `messages`, and where
they are its own, `questions` (or `question`), `tokens` and `id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.documents.strict_json import load_json
from core.errors import DataError
from core.text.wording import unreadable
from pipelines.asking.reader import make_prompt
from pipelines.asking.results import Prompt

_KEYS = ("id", "prompt", "system", "stimulus", "messages", "question", "questions", "tokens")


@dataclass(frozen=True, slots=True)
class Line:
    """A prompt of a file.

    Attributes:
        id: its own name, or the number of its line, counted from 1.
        prompt: the conversation, and what is asked about it.
    """

    id: str | int
    prompt: Prompt


def read_prompts(path: Path, questions: Sequence[str], tokens: str) -> list[Line]:
    """Read the prompts of a file; `.jsonl` and `.json` are JSON lines, any other name is text.

    Args:
        path: the file.
        questions: asked of prompts that have none of their own.
        tokens: choice of tokens for prompts that have none of their own.

    Raises:
        DataError: the file cannot be read, holds no prompt, or a line of it is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(unreadable(path, error)) from error
    as_json = path.suffix in (".jsonl", ".json")
    out = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            row = _object(line, where) if as_json else {"prompt": line.strip()}
            out.append(_line(row, number, where, questions, tokens))
    if not out:
        raise DataError(f"{path}: has no prompt, expected one per line.")
    return out


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = load_json(line)
    except ValueError as error:
        raise DataError(
            f"{where}: not valid JSON ({error}), expected one object per line."
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: got a {type(row).__name__}, expected an object.")
    if unknown := sorted(set(row) - set(_KEYS)):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; expected {', '.join(_KEYS)}.")
    if ("prompt" in row) == ("messages" in row):
        raise DataError(f"{where}: expected one of `prompt` and `messages`.")
    for name in ("prompt", "system", "stimulus", "question", "tokens"):
        if not isinstance(row.get(name, ""), str):
            raise DataError(f"{where}: {name} is a {type(row[name]).__name__}, expected text.")
    if not isinstance(row.get("id", ""), str | int):
        raise DataError(f"{where}: id is a {type(row['id']).__name__}, expected text or a number.")
    return row


def _line(
    row: dict[str, Any], number: int, where: str, questions: Sequence[str], tokens: str
) -> Line:
    own = row.get("questions", [row["question"]] if "question" in row else list(questions))
    if not isinstance(own, list) or not all(isinstance(question, str) for question in own):
        raise DataError(f"{where}: questions is not a list of texts.")
    if not own:
        raise DataError(
            f"{where}: has no question, expected `questions` in the line or --question for all."
        )
    try:
        prompt = make_prompt(
            row["messages"] if "messages" in row else row["prompt"],
            own,
            system=row.get("system"),
            stimulus=row.get("stimulus"),
            tokens=row.get("tokens", tokens),
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return Line(row.get("id", number), prompt)
