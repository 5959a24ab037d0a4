"""Questions of own conversations: each is read by itself, and a malformed one leaves the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.documents.strict_json import json_line, json_type_name
from core.records.tables import Dropped
from generators.exchange.config import RowsConfig
from generators.exchange.source_rows import MalformedRow, read_text

_FIELDS = ("question", "answer", "type")


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnQuestion:
    """A question of a row, with its answer.

    Attributes:
        file: name of the file.
        position: the row's place in the file, and the question's in the row.
    """

    question: str
    answer: str
    type: str | None
    file: str
    position: tuple[int, int]

    @property
    def pair(self) -> tuple[str, str]:
        """What two questions that are the same have in common."""
        return self.question, self.answer

    def drop_repeated(self) -> Dropped:
        """Record this question as one that its conversation has already."""
        line, index = self.position
        return Dropped(
            reason="duplicate_question",
            where=f"{self.file}:{line} questions[{index}]",
            detail="the conversation has the same question and answer already",
            raw=json_line([*self.pair]),
        )


def read_questions(
    value: Mapping[str, Any], config: RowsConfig, file: str, line: int
) -> tuple[tuple[OwnQuestion, ...], tuple[Dropped, ...]]:
    """Read the questions of a row, and the malformed ones among them.

    Args:
        value: the row.
        config: layout of the rows; where an LLM writes the questions, the row's are not read.
        file: name of the file.
        line: the row's place in it.

    Raises:
        MalformedRow: the row has no list of questions, or no well-formed one.
    """
    if config.questions == "written":
        return (), ()
    if "questions" not in value:
        raise MalformedRow(
            "missing_field",
            f"no field 'questions'; found {sorted(value)} "
            "(rows.questions: written has an LLM write them)",
        )
    given = value["questions"]
    if not isinstance(given, list) or not given:
        got = "an empty list" if given == [] else json_type_name(given)
        raise MalformedRow("empty_field", f"'questions' is {got}; expected a list")
    found: list[OwnQuestion] = []
    dropped: list[Dropped] = []
    first: MalformedRow | None = None
    for index, one in enumerate(given):
        try:
            question, answer, kind = _read_question(index, one, config)
        except MalformedRow as fault:
            first = first or fault
            dropped.append(fault.drop(f"{file}:{line} questions[{index}]", json_line(one)))
            continue
        place = (line, index)
        found.append(
            OwnQuestion(question=question, answer=answer, type=kind, file=file, position=place)
        )
    if not found and first is not None:
        raise first
    return tuple(found), tuple(dropped)


def find_new(
    known: tuple[OwnQuestion, ...], questions: tuple[OwnQuestion, ...]
) -> Iterator[OwnQuestion]:
    """Yield those of `questions` that `known` has not, each once."""
    seen = {one.pair for one in known}
    for one in questions:
        if one.pair not in seen:
            seen.add(one.pair)
            yield one


def _read_question(index: int, value: Any, config: RowsConfig) -> tuple[str, str, str | None]:
    where = f"questions[{index}]: "
    if isinstance(value, list) and len(value) == 2:
        value = dict(zip(_FIELDS, value, strict=False))
    if not isinstance(value, dict):
        raise MalformedRow(
            "malformed_qa",
            f"{where}{json_type_name(value)}; expected {{question, answer}} or [question, answer]",
        )
    names = {config.columns.get(name, name): name for name in _FIELDS}
    value = {names.get(name, name): item for name, item in value.items()}
    if type(value.get("answer")) is int:  # the answer to "how many?"
        value["answer"] = str(value["answer"])
    kind = read_text(value, "type", where) if value.get("type") else None
    return read_text(value, "question", where), read_text(value, "answer", where), kind
