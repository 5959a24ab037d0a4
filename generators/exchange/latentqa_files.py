"""LatentQA's published JSON files are read row by row.

A folder holds `qa.json` and any of the four view files, joined by `label`:

```
qa.json      {label: [[question, answer], ...], ...}
VIEW.json    [{the view's fields, "label": ...}, ...]     VIEW as in core.records.tables.VIEWS
```

A file that is no JSON stops the import; a malformed row is set aside as `Dropped` with the name of
the rule that it breaks, and the rest goes on. Layout: arXiv 2412.08686 and its published data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from core.documents.strict_json import (
    RepeatedKeys,
    fits_utf8,
    has_finite_numbers,
    has_repeated_key,
    json_line,
    json_type_name,
    read_json,
)
from core.errors import DataError
from core.records.tables import KIND_NAMES, VIEWS, Dropped, Message, Segment, View
from generators.exchange.source_rows import MalformedRow, SourceRow, read_text

QA_FILE = "qa.json"
VIEW_FILES: dict[View, str] = {view: f"{view}.json" for view in VIEWS}
FILES = (QA_FILE, *VIEW_FILES.values())

KIND_OF_PREFIX = {"sqa": "extractive", **{name: name for name in (*KIND_NAMES, "own")}}
"""Kind of a row by the first part of its label; `sqa` stands for synthetic question answering in
the published files, and every kind of this project begins its labels with its name."""

NO_CATEGORY = "uncategorised"
"""Category of a label that has no second part."""


OF_LABEL = "of_label"
"""Field of an exported row whose label has rows with other questions: the label itself, where the
files have one of the row's own."""


class Field(NamedTuple):
    """A field of a published JSON file, with role and segment of the message that it becomes."""

    name: str
    role: str
    segment: Segment


_CONTROL = Field("control_user", "user", "control")
_ACKNOWLEDGEMENT = Field("control_model", "assistant", "control")
_STIMULUS = Field("stimulus_user", "user", "stimulus")
_COMPLETION = Field("stimulus_model", "assistant", "completion")

FIELDS: dict[View, tuple[Field, ...]] = {
    "control": (_CONTROL,),
    "stimulus": (_CONTROL, _ACKNOWLEDGEMENT, _STIMULUS),
    "stimulus_completion": (_CONTROL, _ACKNOWLEDGEMENT, _STIMULUS, _COMPLETION),
    "system": (Field("system", "system", "control"), _STIMULUS),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelQuestions:
    """The well-formed questions of one label: (position in the label's list, question, answer)."""

    label: str
    position: int
    pairs: tuple[tuple[int, str, str], ...]
    raw: str


def read_view(folder: Path, view: View) -> tuple[list[SourceRow], list[Dropped]]:
    """Read the rows of one view file, in file order, and those that are malformed.

    Raises:
        DataError: the file is no JSON, or not a list.
    """
    path = folder / VIEW_FILES[view]
    rows: list[SourceRow] = []
    dropped: list[Dropped] = []
    values = read_json(path)
    if not isinstance(values, list):
        raise DataError(f"{path}: holds {json_type_name(values)}; expected a list of rows.")
    for position, value in enumerate(values):
        raw = json_line(value.pairs if isinstance(value, RepeatedKeys) else value)
        try:
            rows.append(_view_row(view, position, value, raw))
        except MalformedRow as fault:
            dropped.append(fault.drop(f"{VIEW_FILES[view]}[{position}]", raw))
    return rows, dropped


def read_questions_by_label(folder: Path) -> tuple[list[LabelQuestions], list[Dropped]]:
    """Read the labels of `qa.json` with a well-formed question, in file order; and the malformed.

    Raises:
        DataError: the file is no JSON, or not an object.
    """
    path = folder / QA_FILE
    labels: list[LabelQuestions] = []
    dropped: list[Dropped] = []
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds {json_type_name(value)}; expected an object of labels.")
    seen: set[str] = set()
    for position, (label, pairs) in enumerate(_items(value)):
        where, raw = f"{QA_FILE}[{position}]", json_line({label: pairs})
        if label in seen:
            detail = f"label {label!r} stands in the file twice; the first one is kept"
            dropped.append(Dropped(reason="repeated_label", where=where, detail=detail, raw=raw))
            continue
        seen.add(label)
        if not isinstance(pairs, list) or not pairs:
            got = "an empty list" if pairs == [] else json_type_name(pairs)
            detail = f"label {label!r} has {got}; expected a list of [question, answer]"
            dropped.append(Dropped(reason="malformed_qa", where=where, detail=detail, raw=raw))
            continue
        good, bad = _good_pairs(where, label, pairs)
        dropped += bad
        if good:
            labels.append(LabelQuestions(label=label, position=position, pairs=good, raw=raw))
    return labels, dropped


def _view_row(view: View, position: int, value: Any, raw: str) -> SourceRow:
    if not isinstance(value, dict):
        got = json_type_name(value)
        raise MalformedRow("not_an_object", f"the row is {got}; expected an object")
    if has_repeated_key(value):
        raise MalformedRow("repeated_field", "a field stands in the row twice; expected it once")
    if not fits_utf8(json.dumps(value, ensure_ascii=False)):
        raise MalformedRow(
            "invalid_unicode", "the text has half a surrogate pair; expected UTF-8 text"
        )
    texts = {name: read_text(value, name) for name in (*(f.name for f in FIELDS[view]), "label")}
    extra = {name: item for name, item in value.items() if name not in texts}
    label = texts["label"]
    kind, category = kind_and_category(label)
    kind, category = _text(extra, "kind") or kind, _text(extra, "category") or category
    if kind is None:
        known = ", ".join(KIND_OF_PREFIX)
        raise MalformedRow("unknown_kind", f"label {label!r} begins with none of {known}")
    if not has_finite_numbers(extra):
        raise MalformedRow(
            "not_finite", "a number is beyond what a float holds; expected a finite one"
        )
    return SourceRow(
        view=view,
        file=VIEW_FILES[view],
        position=position,
        where=f"{VIEW_FILES[view]}[{position}]",
        label=_text(extra, OF_LABEL) or label,
        qa_label=label,
        kind=kind,
        category=category,
        messages=tuple(
            Message(role=f.role, content=texts[f.name], segment=f.segment) for f in FIELDS[view]
        ),
        extra=extra,
        raw=raw,
    )


def kind_and_category(label: str) -> tuple[str | None, str]:
    """Return what a label says of its rows; a row's own `kind` and `category` go before it.

    Returns:
        The kind, None where the label begins with no known one, and the category.
    """
    prefix, _, rest = label.partition("-")
    return KIND_OF_PREFIX.get(prefix), rest.partition("-")[0] or NO_CATEGORY


def _text(extra: dict[str, Any], name: str) -> str | None:
    found = extra.get(name)
    return found if isinstance(found, str) and found.strip() else None


def _good_pairs(
    where: str, label: str, pairs: list[Any]
) -> tuple[tuple[tuple[int, str, str], ...], list[Dropped]]:
    good: dict[tuple[str, str], int] = {}
    dropped: list[Dropped] = []
    for index, pair in enumerate(pairs):
        try:
            if (read := _read_pair(pair)) in good:
                raise MalformedRow(
                    "duplicate_question", "the same question and answer stand there twice"
                )
            good[read] = index
        except MalformedRow as fault:
            told = MalformedRow(fault.reason, f"label {label!r}: {fault.detail}")
            dropped.append(told.drop(f"{where}[{index}]", json_line({label: [pair]})))
    return tuple((index, *pair) for pair, index in good.items()), dropped


def _read_pair(pair: Any) -> tuple[str, str]:
    if not isinstance(pair, list) or len(pair) != 2:
        size = f" of {len(pair)}" if isinstance(pair, list) else ""
        raise MalformedRow(
            "malformed_qa", f"{json_type_name(pair)}{size}; expected [question, answer]"
        )
    for part, name in zip(pair, ("question", "answer"), strict=True):
        if not isinstance(part, str):
            got = json_type_name(part)
            raise MalformedRow("malformed_qa", f"the {name} is {got}; expected a string")
        if not part.strip():
            raise MalformedRow("empty_field", f"the {name} is empty; expected text")
        if not fits_utf8(part):
            raise MalformedRow(
                "invalid_unicode", f"the {name} has half a surrogate pair; expected UTF-8 text"
            )
    return pair[0], pair[1]


def _items(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return iter(value.pairs if isinstance(value, RepeatedKeys) else value.items())
